//! A feed: begins with everything, has no gap, loses nothing when a call is dropped, and tells every kind of change.

use std::time::Duration;

use futures_util::FutureExt;
use sd_core::port::Feed;
use sd_core::{Instance, Snapshot};
use tokio::time::{Instant, sleep, timeout};

use crate::Fixture;
use crate::case::{Case, Failure, Outcome, case, ensure};
use crate::scene::Scene;

pub(super) const CASES: &[Case] = &[
    case!(the_first_call_answers_with_the_full_set),
    case!(no_change_falls_between_the_first_set_and_the_feed),
    case!(a_readiness_change_is_told_as_the_same_run, Metadata),
    case!(a_change_of_metadata_alone_is_told, Metadata),
    case!(a_new_address_is_told_as_the_same_run, Ids),
    case!(a_withdrawal_is_told),
    case!(a_withdrawal_is_named, Withdrawals, Ids),
    case!(a_new_run_under_an_old_id_is_told, Ids),
    case!(a_dropped_call_loses_nothing),
    case!(the_revision_never_goes_back, Metadata),
    case!(two_feeds_of_one_service_tell_the_same),
    case!(a_quiet_feed_says_that_it_is_alive),
];

/// How long a loopback and a busy machine may take for an answer that must come at once.
const AT_ONCE: Duration = Duration::from_secs(5);

async fn the_first_call_answers_with_the_full_set(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let instances = scene.register_all(&["b", "a", "c"]).await?;
    let mut follower = scene.follow().await?;
    let begins = scene.ensure_begins_with(&mut follower, &instances);
    match timeout(AT_ONCE + scene.late, begins).await {
        Ok(began) => began,
        Err(_) => Err(Failure::Broken(format!("no answer within {AT_ONCE:?}"))),
    }
}

async fn no_change_falls_between_the_first_set_and_the_feed(fixture: &dyn Fixture) -> Outcome {
    // Each round opens the feed at another point of a burst. No later change heals what was missed.
    const BURST: usize = 8;
    for round in 0..3 * BURST {
        let scene = Scene::open(fixture).await?;
        let instances = (0..BURST)
            .map(|index| scene.instance(&format!("i{index}")))
            .collect::<sd_core::Result<Vec<_>>>()?;
        let (before, during) = instances.split_at(round % BURST);
        for instance in before {
            scene.register(instance).await?;
        }
        let registering = async {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            scene.register_at_once(during).await
        };
        let (registered, follower) = tokio::join!(registering, scene.follow());
        registered?;
        follower?
            .until("all that registered while it opened", |set| {
                scene.sight.holds(set, &instances)
            })
            .await?;
    }
    Ok(())
}

async fn a_readiness_change_is_told_as_the_same_run(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    tells_change(&scene, |instance| {
        Ok(instance.with_ready(false).with_weight(9))
    })
    .await
}

async fn a_change_of_metadata_alone_is_told(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    tells_change(&scene, |instance| Ok(instance.with_metadata("k", "new"))).await
}

async fn a_new_address_is_told_as_the_same_run(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    tells_change(&scene, |instance| {
        Ok(instance.with_endpoint("10.0.0.8:50052".parse()?))
    })
    .await
}

/// Changes one of two instances while a feed is open.
async fn tells_change(
    scene: &Scene,
    change: impl Fn(Instance) -> sd_core::Result<Instance>,
) -> Outcome {
    let before = scene.instance("changes")?.with_metadata("k", "old");
    let registration = scene.register(&before).await?;
    let other = scene.register_all(&["stays"]).await?;
    let mut follower = scene.follow().await?;
    let both = [vec![before.clone()], other.clone()].concat();
    follower
        .until("both", |set| scene.sight.holds(set, &both))
        .await?;

    let after = change(before)?;
    registration.update(&after).await?;
    let both = [vec![after], other].concat();
    follower
        .until("the change", |set| scene.sight.holds(set, &both))
        .await?;
    scene.ensure_lists("after the change", &both).await
}

async fn a_withdrawal_is_told(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    withdraw_one(&scene).await.map(drop)
}

async fn a_withdrawal_is_named(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let (gone, set) = withdraw_one(&scene).await?;
    ensure(set.withdrawn().contains(gone.id()), || {
        format!(
            "{:?} is not named as withdrawn on purpose: {:?}",
            gone.id(),
            set.withdrawn()
        )
    })
}

/// Withdraws one of three instances while a feed is open, and returns it and the set without it.
async fn withdraw_one(scene: &Scene) -> Result<(Instance, Snapshot), Failure> {
    let mut instances = scene.register_all(&["a", "b", "c"]).await?;
    let mut follower = scene.follow().await?;
    follower
        .until("all three", |set| scene.sight.holds(set, &instances))
        .await?;
    let gone = instances.remove(1);
    scene.registrar.withdraw(&gone.record_id()).await?;
    let set = follower
        .until("the withdrawal", |set| scene.sight.holds(set, &instances))
        .await?;
    Ok((gone, set))
}

async fn a_new_run_under_an_old_id_is_told(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let old = scene.register_all(&["a"]).await?;
    let mut follower = scene.follow().await?;
    follower
        .until("the first run", |set| scene.sight.holds(set, &old))
        .await?;
    for run in &old {
        scene.registrar.withdraw(&run.record_id()).await?;
    }
    let new = scene.register_all(&["a"]).await?;
    let set = follower
        .until("the second run", |set| scene.sight.holds(set, &new))
        .await?;
    ensure(set.withdrawn().is_empty(), || {
        format!("one that is there is named as withdrawn: {set:?}")
    })
}

async fn a_dropped_call_loses_nothing(fixture: &dyn Fixture) -> Outcome {
    const ROUNDS: usize = 24;
    let scene = Scene::open(fixture).await?;
    let mut follower = scene.follow().await?;
    let mut expected = Vec::new();
    follower.until("the empty set", Snapshot::is_empty).await?;
    for round in 0..ROUNDS {
        if round % 3 == 2 {
            let gone: Instance = expected.remove(0);
            scene.registrar.withdraw(&gone.record_id()).await?;
        } else {
            expected.extend(scene.register_all(&[&format!("i{round}")]).await?);
        }
        // Calls are dropped at their first wait and at a later one; in some rounds before the change can have arrived.
        for drops in 0..round % 4 {
            if let Some(told) = follower.watcher.next().now_or_never() {
                follower.take(&told?)?;
            }
            if drops > 0 {
                sleep(Duration::from_millis(1)).await;
            }
            tokio::task::yield_now().await;
        }
        if let Ok(told) = timeout(Duration::from_millis(1), follower.watcher.next()).await {
            follower.take(&told?)?;
        }
        follower
            .until("a change after calls were dropped", |set| {
                scene.sight.holds(set, &expected)
            })
            .await?;
    }
    Ok(())
}

async fn the_revision_never_goes_back(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let instance = scene.instance("a")?;
    let registration = scene.register(&instance).await?;
    // The follower fails when a revision goes back.
    let mut follower = scene.follow().await?;
    for round in 0..10 {
        let before = scene.list().await?.revision().clone();
        let changed = instance.clone().with_metadata("round", round.to_string());
        registration.update(&changed).await?;
        let told = follower
            .until("a change", |set| {
                scene.sight.holds(set, std::slice::from_ref(&changed))
            })
            .await?;
        let after = scene.list().await?.revision().clone();
        let back = after < before;
        ensure(!back, || {
            format!("a list at {before:?} was followed by one at {after:?}")
        })?;
        let back = told.revision() < &before;
        ensure(!back, || {
            format!(
                "a change after {before:?} was told at {:?}",
                told.revision()
            )
        })?;
    }
    Ok(())
}

async fn two_feeds_of_one_service_tell_the_same(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let mut one = scene.follow().await?;
    let mut two = scene.follow().await?;
    let mut instances = Vec::new();
    for round in 0..10 {
        instances.extend(scene.register_all(&[&format!("i{round}")]).await?);
        if round % 3 == 2 {
            let gone = instances.remove(0);
            scene.registrar.withdraw(&gone.record_id()).await?;
        }
        one.until("what registered", |set| scene.sight.holds(set, &instances))
            .await?;
        two.until("what the other feed told", |set| {
            scene.sight.holds(set, &instances)
        })
        .await?;
    }
    Ok(())
}

async fn a_quiet_feed_says_that_it_is_alive(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let mut follower = scene.follow().await?;
    follower.until("the empty set", Snapshot::is_empty).await?;
    let limit = follower.watcher.silence_limit();
    let sane = Duration::from_millis(100)..=Duration::from_secs(30 * 60);
    ensure(sane.contains(&limit), || {
        format!("a silence limit of {limit:?} is outside of {sane:?}")
    })?;
    ensure(limit <= fixture.patience(), || {
        format!(
            "a feed may be silent for {limit:?}, and the fixture waits for {:?}",
            fixture.patience()
        )
    })?;
    let quiet_since = Instant::now();
    match timeout(limit, follower.watcher.next()).await {
        Ok(told) => match told? {
            feed @ (Feed::Alive { .. } | Feed::Set(_)) => follower.take(&feed),
            other => Err(Failure::Broken(format!("a well feed told {other:?}"))),
        },
        Err(_) => Err(Failure::Broken(format!(
            "silent for {:?}: core would take it for dead",
            quiet_since.elapsed()
        ))),
    }
}
