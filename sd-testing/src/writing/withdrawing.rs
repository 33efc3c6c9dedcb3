//! Withdrawing: this run's record, no other's, whatever became of it before.

use std::time::Duration;

use futures_util::FutureExt;
use sd_core::Incarnation;
use tokio::time::{sleep, timeout};

use crate::Fixture;
use crate::case::{Case, Outcome, case};
use crate::scene::Scene;

pub(super) const CASES: &[Case] = &[
    case!(a_withdrawn_record_is_gone_at_once),
    case!(withdrawing_what_is_absent_is_fine),
    case!(withdrawing_spares_a_successor),
    case!(withdrawing_one_of_two_records_leaves_the_other_alive),
    case!(a_register_that_was_dropped_is_cleaned_up),
];

async fn a_withdrawn_record_is_gone_at_once(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    for round in 0..5 {
        let registered = scene.register_all(&[&format!("i{round}")]).await?;
        scene
            .ensure_lists("right after it registered", &registered)
            .await?;
        for instance in registered {
            scene.registrar.withdraw(&instance.record_id()).await?;
        }
        scene
            .ensure_lists("right after it was withdrawn", &[])
            .await?;
    }
    Ok(())
}

async fn withdrawing_what_is_absent_is_fine(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let never = scene.instance("never")?;
    scene.registrar.withdraw(&never.record_id()).await?;
    for instance in scene.register_all(&["a"]).await? {
        scene.registrar.withdraw(&instance.record_id()).await?;
        scene.registrar.withdraw(&instance.record_id()).await?;
    }
    scene
        .ensure_lists("after it was withdrawn twice", &[])
        .await
}

async fn withdrawing_spares_a_successor(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let first = scene.instance("a")?;
    scene.register(&first).await?;
    scene.registrar.withdraw(&first.record_id()).await?;
    let successor = first.clone().with_incarnation(Incarnation::random());
    scene.register(&successor).await?;
    // As when the withdrawal's first answer was lost.
    scene.registrar.withdraw(&first.record_id()).await?;
    scene
        .ensure_still_lists("after the predecessor was withdrawn", &[successor])
        .await
}

async fn withdrawing_one_of_two_records_leaves_the_other_alive(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let stays = scene.instance("stays")?;
    let registration = scene.register(&stays).await?;
    for gone in scene.register_all(&["gone"]).await? {
        scene.registrar.withdraw(&gone.record_id()).await?;
    }
    registration.renew().await?;
    scene
        .ensure_still_lists("after the other one was withdrawn", &[stays])
        .await
}

async fn a_register_that_was_dropped_is_cleaned_up(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    for wait in [0, 1, 2, 5] {
        let instance = scene.instance(&format!("i{wait}"))?;
        if wait == 0 {
            drop(scene.register(&instance).now_or_never());
        } else {
            let limit = Duration::from_millis(wait);
            drop(timeout(limit, scene.register(&instance)).await);
        }
        scene.registrar.withdraw(&instance.record_id()).await?;
    }
    scene
        .ensure_still_lists("after dropped registrations were withdrawn", &[])
        .await?;
    // Nothing that was still on its way may arrive later.
    sleep(Duration::from_millis(200)).await;
    scene.ensure_still_lists("a while later", &[]).await
}
