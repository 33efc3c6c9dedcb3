//! What the fixture says that readers lack, they lack. Else cases would be skipped for nothing.

use sd_core::Snapshot;

use crate::case::{Case, Outcome, case, ensure};
use crate::scene::Scene;
use crate::{Ability, Fixture};

pub(super) const CASES: &[Case] = &[case!(what_the_fixture_says_that_readers_lack_they_lack)];

async fn what_the_fixture_says_that_readers_lack_they_lack(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let written = scene.instance("a")?.with_metadata("k", "v");
    scene.register(&written).await?;
    let mut follower = scene.follow().await?;
    let set = follower.until("the record", |set| set.len() == 1).await?;
    let listed = scene.reader.list(&scene.service).await;
    let services = scene.reader.services().await;
    let garbage = fixture.write_garbage(&scene.service).await;
    scene.registrar.withdraw(&written.record_id()).await?;
    let last = follower.until("the withdrawal", Snapshot::is_empty).await?;

    let mut seen = set.instances().iter();
    for (ability, is_there) in [
        (
            Ability::Ids,
            set.get(written.id())
                .is_some_and(|seen| seen.is_same_run(&written)),
        ),
        (
            Ability::Metadata,
            seen.any(|seen| seen.metadata() == written.metadata()),
        ),
        (
            Ability::RunOrder,
            (set.instances().iter()).any(|seen| set.run_order(seen.id()).is_some()),
        ),
        (Ability::ReadOnDemand, listed.is_ok()),
        (Ability::Services, services.is_ok()),
        (Ability::Withdrawals, !last.withdrawn().is_empty()),
        (Ability::UnreadableEntries, garbage.is_ok()),
    ] {
        ensure(fixture.has(ability) || !is_there, || {
            format!("the fixture says that the source lacks {ability}, and it is there")
        })?;
    }
    Ok(())
}
