//! What the fixture says that writers lack, they lack. Else cases would be skipped for nothing.

use std::sync::Arc;

use sd_core::{ErrorKind, Incarnation, Override};

use crate::case::{Case, Outcome, case, ensure};
use crate::scene::Scene;
use crate::{Ability, Fixture};

pub(super) const CASES: &[Case] = &[case!(what_the_fixture_says_that_writers_lack_they_lack)];

async fn what_the_fixture_says_that_writers_lack_they_lack(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let written = scene.instance("a")?.with_ready(false);
    let record = written.record_id();
    scene.register(&written).await?;
    let twin = written.with_incarnation(Incarnation::random());
    let refused = match scene.register(&twin).await {
        Err(error) => error.kind() == ErrorKind::Conflict,
        Ok(_) => false,
    };
    let operator = Arc::clone(&scene.reader).operator();
    let made_ready = match &operator {
        Some(operator) => {
            let set = operator.set_override(&record, Some(Override::Ready)).await;
            set.is_ok()
        }
        None => false,
    };
    let released = scene.registrar.release(&record).await;
    let removed = fixture.remove_record(&record).await;
    for (ability, is_there) in [
        (Ability::UniqueIds, refused),
        (Ability::Release, released.is_ok()),
        (Ability::Removal, removed.is_ok()),
        (Ability::Operators, operator.is_some()),
        (Ability::ReadyOverrides, made_ready),
    ] {
        ensure(fixture.has(ability) || !is_there, || {
            format!("the fixture says that the source lacks {ability}, and it is there")
        })?;
    }
    Ok(())
}
