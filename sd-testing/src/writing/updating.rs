//! Updating: in place, and never another incarnation's record or one that is gone.

use sd_core::{ErrorKind, Incarnation};

use crate::Fixture;
use crate::case::{Case, Outcome, case, done, ensure, ensure_fails};
use crate::scene::Scene;

pub(super) const CASES: &[Case] = &[
    case!(an_update_is_confirmed_and_in_place, UpdateInPlace, Metadata),
    case!(
        updating_what_was_removed_is_a_loss_and_does_not_bring_it_back,
        Removal
    ),
    case!(a_successor_is_neither_updated_nor_renewed),
];

/// What a registration says when its record is gone.
pub(super) const LOSS: [ErrorKind; 2] = [ErrorKind::LeaseLost, ErrorKind::NotFound];

async fn an_update_is_confirmed_and_in_place(fixture: &dyn Fixture) -> Outcome {
    const UPDATES: usize = 20;
    let scene = Scene::open(fixture).await?;
    let first = scene.instance("a")?;
    let registration = scene.register(&first).await?;
    let mut follower = scene.follow().await?;
    follower.until("the record", |set| set.len() == 1).await?;
    let round = |round: usize| first.clone().with_metadata("round", round.to_string());
    let last = round(UPDATES);
    let updating = async {
        for number in 1..=UPDATES {
            let changed = round(number);
            registration.update(&changed).await?;
            scene.ensure_lists("after an update", &[changed]).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    };
    let watching = async {
        loop {
            follower.step().await?;
            let latest = follower.latest();
            ensure(latest.is_some_and(|set| set.len() == 1), || {
                "the record was absent while it was updated".to_owned()
            })?;
            if latest.is_some_and(|set| scene.sight.finds(set, &last)) {
                return Ok(());
            }
        }
    };
    tokio::try_join!(updating, watching).map(drop)
}

async fn updating_what_was_removed_is_a_loss_and_does_not_bring_it_back(
    fixture: &dyn Fixture,
) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let instance = scene.instance("a")?;
    let registration = scene.register(&instance).await?;
    done(fixture.remove_record(&instance.record_id()).await)?;
    let changed = instance.with_metadata("k", "v");
    ensure_fails(
        "updating a removed record",
        registration.update(&changed).await,
        &LOSS,
    )?;
    scene
        .ensure_still_lists("after the update failed", &[])
        .await
}

async fn a_successor_is_neither_updated_nor_renewed(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let first = scene.instance("a")?;
    let registration = scene.register(&first).await?;
    scene.registrar.withdraw(&first.record_id()).await?;
    let successor = first.clone().with_incarnation(Incarnation::random());
    scene.register(&successor).await?;

    let kinds = [
        ErrorKind::LeaseLost,
        ErrorKind::NotFound,
        ErrorKind::Conflict,
    ];
    let changed = first.with_metadata("k", "v");
    ensure_fails("updating", registration.update(&changed).await, &kinds)?;
    ensure_fails("renewing", registration.renew().await, &kinds)?;
    scene
        .ensure_still_lists("after its predecessor tried to update it", &[successor])
        .await
}
