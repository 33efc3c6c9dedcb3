//! Permanent records: stay until they are withdrawn, whatever becomes of their owners.

use sd_core::port::Attempt;
use tokio::time::sleep;

use crate::Fixture;
use crate::case::{Case, Failure, Outcome, case};
use crate::scene::Scene;

pub(super) const CASES: &[Case] = &[case!(
    a_permanent_record_stays_until_it_is_withdrawn,
    PermanentRecords
)];

async fn a_permanent_record_stays_until_it_is_withdrawn(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let instance = scene.instance("a")?;
    let asked = Attempt::new(fixture.ttl());
    drop(scene.registrar.register(&instance, &asked).await?);
    scene.writer.close().await?;
    sleep(fixture.ttl() * 3).await;
    scene
        .ensure_still_lists("after its owner has gone", std::slice::from_ref(&instance))
        .await?;
    // As by the next run of its owner.
    let Some(next) = fixture.backend().await?.registrar() else {
        return Err(Failure::Broken("this client cannot write".to_owned()));
    };
    next.withdraw(&instance.record_id()).await?;
    scene.ensure_lists("after it was withdrawn", &[]).await
}
