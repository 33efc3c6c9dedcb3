//! Sessions: one keeps all records of a client, without renewals. When it ends, all its registrations are told.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use sd_core::clock::TokioClock;
use sd_core::port::Attempt;
use sd_core::{
    Instance, RegistrationConfig, RegistrationEvent, RegistrationGuard, RegistrationPhase,
    Registry, RegistryConfig,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::updating::LOSS;
use crate::Fixture;
use crate::case::{Case, Failure, Outcome, case, done, ensure, ensure_fails};
use crate::follower::TOLD_WITHIN;
use crate::scene::Scene;

pub(super) const CASES: &[Case] = &[
    case!(a_session_keeps_its_records_without_renewals, Sessions),
    case!(
        the_end_of_a_session_is_told_to_each_of_its_registrations,
        Sessions
    ),
    case!(
        what_a_session_lost_is_registered_again_once_and_in_time,
        Sessions
    ),
];

/// How many records a session keeps.
const RECORDS: usize = 20;

fn records(scene: &Scene) -> sd_core::Result<Vec<Instance>> {
    let ids = (0..RECORDS).map(|number| format!("i{number}"));
    ids.map(|id| scene.instance(&id)).collect()
}

async fn a_session_keeps_its_records_without_renewals(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let asked = Attempt::new(fixture.ttl());
    let (mut all, mut registrations) = (Vec::new(), Vec::new());
    for id in ["a", "b"] {
        let instance = scene.instance(id)?;
        registrations.push(scene.registrar.register(&instance, &asked).await?);
        all.push(instance);
    }
    let mut follower = scene.follow().await?;
    follower
        .until("both", |set| scene.sight.holds(set, &all))
        .await?;
    let until = Instant::now() + fixture.ttl() * 3;
    while let Ok(told) = timeout_at(until, follower.watcher.next()).await {
        follower.take(&told?)?;
        let there = follower.latest().is_some_and(|set| set.len() == all.len());
        ensure(there, || "a record went while its session lived".to_owned())?;
    }
    for registration in registrations {
        registration.renew().await?;
    }
    scene.ensure_lists("after three times the ttl", &all).await
}

async fn the_end_of_a_session_is_told_to_each_of_its_registrations(
    fixture: &dyn Fixture,
) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let records = records(&scene)?;
    let mut registrations = Vec::new();
    for record in &records {
        registrations.push(scene.register(record).await?);
    }
    let Some(others) = Arc::clone(&scene.reader).registrar() else {
        return Err(Failure::Broken("this client cannot write".to_owned()));
    };
    let other = scene.instance("of another session")?;
    let others = others.register(&other, &scene.lasting).await?;
    for registration in &registrations {
        // A call that was dropped loses nothing.
        let early = registration.lost().now_or_never();
        ensure(early.is_none(), || format!("a loss was told: {early:?}"))?;
    }

    done(fixture.expire(&records[0].record_id()).await)?;
    let told = registrations.iter().map(|registration| registration.lost());
    let Ok(told) = timeout(TOLD_WITHIN, join_all(told)).await else {
        return Err(Failure::Broken(format!(
            "not each of {RECORDS} registrations was told within {TOLD_WITHIN:?}"
        )));
    };
    for error in told {
        ensure(LOSS.contains(&error.kind()), || error.report().to_string())?;
    }
    for registration in &registrations {
        ensure_fails("renewing", registration.renew().await, &LOSS)?;
    }
    scene
        .ensure_lists("after a session ended", std::slice::from_ref(&other))
        .await?;
    others.renew().await?;
    let told = others.lost().now_or_never();
    ensure(told.is_none(), || {
        format!("the end of a session was told in another one: {told:?}")
    })?;
    // What core does next, in a new session.
    let registration = scene.register(&records[0]).await?;
    registration.renew().await?;
    let told = registration.lost().now_or_never();
    ensure(told.is_none(), || {
        format!("a new session ended with the old one: {told:?}")
    })?;
    scene
        .ensure_lists("after one registered again", &[records[0].clone(), other])
        .await
}

async fn what_a_session_lost_is_registered_again_once_and_in_time(
    fixture: &dyn Fixture,
) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let ttl = fixture.ttl();
    let config = RegistryConfig::default()
        .with_registration(RegistrationConfig::default().with_ttl(ttl))
        .with_clock(Arc::new(TokioClock));
    let registry = Registry::with_config(Arc::clone(&scene.writer), config);
    let records = records(&scene)?;
    let mut guards = Vec::new();
    for record in &records {
        guards.push(registry.register(record.clone()).await?);
    }
    let left = scene.instance("deregistered before")?;
    registry.register(left).await?.deregister().await?;
    scene
        .ensure_lists("before the session ended", &records)
        .await?;

    done(fixture.expire(&records[0].record_id()).await)?;
    let since = Instant::now();
    let within = ttl / 3 + Duration::from_secs(2) + fixture.expiry_slack();
    let back = join_all(guards.iter_mut().map(until_back));
    let Ok(back) = timeout(within, back).await else {
        let missing = guards
            .iter()
            .filter(|guard| guard.phase() != RegistrationPhase::Registered);
        return Err(Failure::Broken(format!(
            "{} of {RECORDS} are not registered again after {within:?}",
            missing.count()
        )));
    };
    back.into_iter().collect::<Outcome>()?;
    let when = format!("{:?} after the session ended", since.elapsed());
    scene.ensure_lists(&when, &records).await?;

    sleep(ttl).await;
    for guard in &mut guards {
        while let Some(Some(more)) = guard.next_event().now_or_never() {
            ensure(!matches!(more, RegistrationEvent::Lost(_)), || {
                format!("{} was lost again: {more:?}", guard.instance().id())
            })?;
        }
    }
    scene.ensure_lists("a time-to-live later", &records).await?;
    registry.close().await?;
    Ok(())
}

/// Waits until a registration was told its loss, and then that it is registered again.
async fn until_back(guard: &mut RegistrationGuard) -> Outcome {
    let mut told = Vec::new();
    loop {
        let Some(event) = guard.next_event().await else {
            return Err(Failure::Broken(format!(
                "a registration ended after {told:?}"
            )));
        };
        let is_back = matches!(event, RegistrationEvent::Registered(_));
        told.push(event);
        let lost = told
            .iter()
            .any(|event| matches!(event, RegistrationEvent::Lost(_)));
        if is_back && lost {
            return Ok(());
        }
    }
}
