//! Renewing: keeps the record, and proves that it is there. These cases wait for a time-to-live to pass.

use sd_core::port::{Attempt, Liveness, Registration};
use sd_core::{ErrorKind, Instance, Snapshot};
use tokio::time::{Instant, sleep, timeout_at};

use super::updating::LOSS;
use crate::Fixture;
use crate::case::{Case, Failure, Outcome, case, done, ensure, ensure_fails};
use crate::scene::Scene;

pub(super) const CASES: &[Case] = &[
    case!(renewals_keep_the_record_beyond_its_ttl, Expiry),
    case!(
        without_renewals_the_record_goes_when_its_ttl_has_passed,
        Leases
    ),
    case!(
        renewing_and_updating_after_expiry_is_a_loss_and_does_not_bring_it_back,
        Expiry
    ),
    case!(renewing_what_was_removed_is_a_loss, Removal),
    case!(an_id_is_free_after_its_record_expired, Expiry),
];

async fn renewals_keep_the_record_beyond_its_ttl(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let (instance, registration, _) = short_lived(&scene, fixture).await?;
    let mut follower = scene.follow().await?;
    follower.until("the record", |set| set.len() == 1).await?;
    let every = registration.liveness().renew_every();
    let renewing = async {
        for _ in 0..8 {
            sleep(every).await;
            registration.renew().await?;
        }
        Ok::<(), Failure>(())
    };
    let watching = async {
        loop {
            // A feed may be silent for as long as it likes.
            let told = follower.watcher.next().await?;
            follower.take(&told)?;
            let there = follower.latest().is_some_and(|set| set.len() == 1);
            ensure(there, || "the record went while it was renewed".to_owned())?;
        }
    };
    tokio::select! {
        biased;
        renewed = renewing => renewed?,
        gone = watching => return gone,
    }
    scene
        .ensure_lists("after more than two times its ttl", &[instance])
        .await
}

async fn without_renewals_the_record_goes_when_its_ttl_has_passed(
    fixture: &dyn Fixture,
) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let before = Instant::now();
    let (instance, _registration, liveness) = short_lived(&scene, fixture).await?;
    let Liveness::Lease { ttl } = liveness else {
        return Err(Failure::Broken(format!("{liveness:?} is no lease")));
    };
    let mut follower = scene.follow().await?;
    let alone = [instance];
    follower
        .until("the record", |set| scene.sight.holds(set, &alone))
        .await?;
    let deadline = Instant::now() + ttl + fixture.expiry_slack() + scene.late;
    while !follower.latest().is_some_and(Snapshot::is_empty) {
        match timeout_at(deadline, follower.watcher.next()).await {
            Ok(told) => follower.take(&told?)?,
            Err(_) => {
                return Err(Failure::Broken(format!(
                    "the feed still has the record {:?} after it was registered for {ttl:?}",
                    before.elapsed()
                )));
            }
        }
    }
    ensure(before.elapsed() >= ttl, || {
        format!(
            "the record was gone after {:?} of {ttl:?}",
            before.elapsed()
        )
    })?;
    let withdrawn = follower.latest().map_or(0, |set| set.withdrawn().len());
    ensure(withdrawn == 0, || {
        "an expiry is told as a withdrawal on purpose".to_owned()
    })?;
    scene.ensure_lists("after the feed told so", &[]).await
}

async fn renewing_and_updating_after_expiry_is_a_loss_and_does_not_bring_it_back(
    fixture: &dyn Fixture,
) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let (instance, registration, liveness) = short_lived(&scene, fixture).await?;
    let changed = instance.clone().with_metadata("k", "v");
    expire(&scene, fixture, &instance, liveness).await?;
    ensure_fails("renewing after expiry", registration.renew().await, &LOSS)?;
    ensure_fails(
        "updating after expiry",
        registration.update(&changed).await,
        &LOSS,
    )?;
    scene.ensure_still_lists("after both failed", &[]).await
}

async fn renewing_what_was_removed_is_a_loss(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let instance = scene.instance("a")?;
    let registration = scene.register(&instance).await?;
    done(fixture.remove_record(&instance.record_id()).await)?;
    ensure_fails(
        "renewing a removed record",
        registration.renew().await,
        &LOSS,
    )?;
    scene
        .ensure_still_lists("after the renewal failed", &[])
        .await?;
    // What core does next.
    scene.register(&instance).await?;
    scene
        .ensure_lists("after it registered again", &[instance])
        .await
}

async fn an_id_is_free_after_its_record_expired(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let (instance, _registration, liveness) = short_lived(&scene, fixture).await?;
    expire(&scene, fixture, &instance, liveness).await?;
    let successor = instance.with_incarnation(sd_core::Incarnation::random());
    scene.register(&successor).await?;
    scene
        .ensure_lists("after another run took the id", &[successor])
        .await
}

/// A record with the fixture's time-to-live, and what was granted.
async fn short_lived(
    scene: &Scene,
    fixture: &dyn Fixture,
) -> Result<(Instance, Box<dyn Registration>, Liveness), Failure> {
    let instance = scene.instance("a")?;
    let asked = Attempt::new(fixture.ttl());
    let registration = scene.registrar.register(&instance, &asked).await?;
    let granted = registration.liveness();
    Ok((instance, registration, granted))
}

/// Ends the lease or the session of a record that is not renewed.
async fn expire(
    scene: &Scene,
    fixture: &dyn Fixture,
    instance: &Instance,
    liveness: Liveness,
) -> Outcome {
    match (fixture.expire(&instance.record_id()).await, liveness) {
        (Err(error), Liveness::Lease { ttl }) if error.kind() == ErrorKind::Unsupported => {
            let alone = std::slice::from_ref(instance);
            scene.ensure_lists("before it expires", alone).await?;
            let deadline = Instant::now() + ttl + fixture.expiry_slack() + scene.late;
            while !scene.list().await?.is_empty() {
                ensure(Instant::now() < deadline, || {
                    format!("the record is still there long after its ttl of {ttl:?}")
                })?;
                sleep(ttl / 20).await;
            }
            Ok(())
        }
        (expired, _) => done(expired),
    }
}
