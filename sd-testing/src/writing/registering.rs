//! Registering: confirmed means visible, and an id belongs to one run at a time.

use futures_util::FutureExt;
use sd_core::port::{Attempt, Liveness};
use sd_core::{ErrorKind, Incarnation, Registry};

use crate::case::{Case, Failure, Outcome, case, ensure, ensure_fails};
use crate::scene::Scene;
use crate::{Ability, Fixture};

pub(super) const CASES: &[Case] = &[
    case!(a_confirmed_record_is_visible_to_others_at_once),
    case!(registering_again_is_idempotent),
    case!(
        another_run_under_a_live_id_is_a_conflict_and_changes_nothing,
        UniqueIds
    ),
    case!(what_is_granted_is_reported_and_within_limits),
    case!(dropping_a_registration_changes_nothing_at_the_server),
    case!(no_loss_is_told_while_the_record_is_there),
    case!(
        an_oversized_record_is_refused_and_nothing_is_written,
        Metadata
    ),
    case!(the_shortest_and_the_longest_ttl_are_accepted),
    case!(a_closed_backend_neither_registers_nor_withdraws),
];

/// No backend may accept records that are larger.
const LARGEST_TRIED: usize = 16 * 1024 * 1024;

async fn a_confirmed_record_is_visible_to_others_at_once(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let mut instances = Vec::new();
    for round in 0..10 {
        instances.extend(scene.register_all(&[&format!("i{round}")]).await?);
        scene
            .ensure_lists("right after it registered", &instances)
            .await?;
    }
    Ok(())
}

async fn registering_again_is_idempotent(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let first = scene.instance("a")?;
    scene.register(&first).await?;
    // As after an answer that was lost, by which time more may be wanted.
    let second = first.with_metadata("k", "v");
    let registration = scene.register(&second).await?;
    scene
        .ensure_lists("after it registered twice", std::slice::from_ref(&second))
        .await?;
    registration.renew().await?;
    let third = second.with_metadata("k", "w");
    registration.update(&third).await?;
    scene.ensure_lists("after an update", &[third]).await
}

async fn another_run_under_a_live_id_is_a_conflict_and_changes_nothing(
    fixture: &dyn Fixture,
) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let owner = scene.instance("a")?;
    let registration = scene.register(&owner).await?;
    let intruder = owner
        .clone()
        .with_incarnation(Incarnation::random())
        .with_endpoint("10.0.0.8:50051".parse()?);
    for client in [&scene.writer, &scene.reader] {
        let Some(registrar) = std::sync::Arc::clone(client).registrar() else {
            return Err(Failure::Broken("this client cannot write".to_owned()));
        };
        ensure_fails(
            "registering another run under a live id",
            registrar.register(&intruder, &scene.lasting).await,
            &[ErrorKind::Conflict],
        )?;
    }
    scene
        .ensure_still_lists("after another run tried", &[owner])
        .await?;
    registration.renew().await?;
    Ok(())
}

async fn what_is_granted_is_reported_and_within_limits(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let instance = scene.instance("a")?;
    let asked = Attempt::new(fixture.ttl());
    let registration = scene.registrar.register(&instance, &asked).await?;
    let limits = scene.registrar.limits();
    let renewed = registration.renew().await?;
    for granted in [registration.liveness(), renewed.liveness] {
        let (kept, ttl) = match granted {
            Liveness::Lease { ttl } => (Ability::Leases, Some(ttl)),
            Liveness::Session { ttl } => (Ability::Sessions, Some(ttl)),
            // A permanent record has no time-to-live to hold against the limits.
            _ => (Ability::PermanentRecords, None),
        };
        ensure(fixture.has(kept), || {
            format!("{granted:?} was granted, and the fixture says that the source lacks {kept}")
        })?;
        ensure(ttl.is_some() == fixture.has(Ability::Expiry), || {
            format!("{granted:?} was granted, which does not fit what the fixture says of Expiry")
        })?;
        ensure(ttl.is_none_or(|ttl| limits.ttl.contains(&ttl)), || {
            format!("{ttl:?} was granted, outside of {:?}", limits.ttl)
        })?;
        ensure(!granted.renew_every().is_zero(), || {
            format!("{granted:?} can never be renewed in time")
        })?;
    }
    Ok(())
}

async fn dropping_a_registration_changes_nothing_at_the_server(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let instance = scene.instance("a")?;
    let mut follower = scene.follow().await?;
    let registration = scene.register(&instance).await?;
    follower.until("the record", |set| set.len() == 1).await?;
    drop(registration);
    // Something that happens later shows that nothing happened before.
    let other = scene.register_all(&["b"]).await?;
    let both = [vec![instance], other].concat();
    let sight = scene.sight;
    let set = follower
        .until("the next change", |set| sight.finds(set, &both[1]))
        .await?;
    ensure(sight.holds(&set, &both), || {
        format!("the record went with its registration: {set:?}")
    })?;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    scene.ensure_still_lists("a while later", &both).await
}

async fn no_loss_is_told_while_the_record_is_there(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let instance = scene.instance("a")?;
    let registration = scene.register(&instance).await?;
    for _ in 0..3 {
        let told = registration.lost().now_or_never();
        ensure(told.is_none(), || format!("a loss was told: {told:?}"))?;
        registration.renew().await?;
    }
    let waited = std::time::Duration::from_millis(100);
    match tokio::time::timeout(waited, registration.lost()).await {
        Ok(error) => Err(Failure::Broken(format!(
            "a loss was told: {}",
            error.report()
        ))),
        Err(_) => scene.ensure_lists("all the time", &[instance]).await,
    }
}

async fn an_oversized_record_is_refused_and_nothing_is_written(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let most = scene.registrar.limits().record_bytes;
    ensure(most <= LARGEST_TRIED, || {
        format!("records of {most} bytes are accepted: state a limit of at most {LARGEST_TRIED}")
    })?;
    let large = scene.instance("a")?.with_metadata("k", "x".repeat(most));
    // Core compares what the backend says of the record with what it says of itself.
    let registry = Registry::new(std::sync::Arc::clone(&scene.writer));
    ensure_fails(
        "registering an oversized record",
        registry.register(large).await,
        &[ErrorKind::InvalidInput],
    )?;
    scene.ensure_still_lists("after it was refused", &[]).await
}

async fn the_shortest_and_the_longest_ttl_are_accepted(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let range = scene.registrar.limits().ttl.clone();
    for (id, ttl) in [("shortest", *range.start()), ("longest", *range.end())] {
        let instance = scene.instance(id)?;
        let registered = scene
            .registrar
            .register(&instance, &Attempt::new(ttl))
            .await;
        let renewed = match registered {
            Ok(registration) => registration.renew().await.map(drop),
            Err(error) => Err(error),
        };
        ensure(renewed.is_ok(), || {
            format!("with the {id} ttl of {range:?}: {renewed:?}")
        })?;
        scene.registrar.withdraw(&instance.record_id()).await?;
    }
    Ok(())
}

async fn a_closed_backend_neither_registers_nor_withdraws(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let record = scene.register_all(&["a"]).await?;
    scene.writer.close().await?;
    let late = scene.instance("b")?;
    let kinds = [ErrorKind::Closed];
    ensure_fails("registering", scene.register(&late).await, &kinds)?;
    for instance in &record {
        let withdrawn = scene.registrar.withdraw(&instance.record_id()).await;
        ensure_fails("withdrawing", withdrawn, &kinds)?;
    }
    tokio::time::sleep(scene.late).await;
    let listed = scene.list().await?;
    ensure(!scene.sight.finds(&listed, &late), || {
        format!("a closed client wrote: {listed:?}")
    })
}
