//! Restarting: whose record is in the way is told, an earlier run's is waited out, and a released one is continued.

use std::sync::Arc;
use std::time::Duration;

use sd_core::clock::TokioClock;
use sd_core::port::Attempt;
use sd_core::{
    Backend, ErrorKind, Holder, Incarnation, Instance, RegistrationConfig, RegistrationPhase,
    Registry, RegistryConfig,
};
use tokio::time::{Instant, sleep};

use crate::Fixture;
use crate::case::{Case, Failure, Outcome, case, ensure};
use crate::scene::Scene;

pub(super) const CASES: &[Case] = &[
    case!(a_conflict_says_who_holds_the_id, UniqueIds),
    case!(
        an_earlier_run_at_the_same_address_is_waited_out,
        UniqueIds,
        Leases
    ),
    case!(a_living_run_at_the_same_address_keeps_its_record, UniqueIds),
    case!(a_released_record_is_continued_by_another_client, Release),
];

/// A registry as a process has one, by the clock that measures the cases.
fn registry_over(backend: &Arc<dyn Backend>, config: RegistrationConfig) -> Registry {
    let config = RegistryConfig::default()
        .with_registration(config)
        .with_clock(Arc::new(TokioClock));
    Registry::with_config(Arc::clone(backend), config)
}

fn within(confirm: Duration, ttl: Duration) -> RegistrationConfig {
    RegistrationConfig::default()
        .with_confirm_within(confirm)
        .with_ttl(ttl)
}

async fn a_conflict_says_who_holds_the_id(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let owner = scene.instance("a")?;
    scene.register(&owner).await?;
    let intruder = owner
        .clone()
        .with_incarnation(Incarnation::random())
        .with_endpoint("10.0.0.8:50051".parse()?);
    let start = Instant::now();
    let refused = registry_over(&scene.reader, RegistrationConfig::default())
        .register(intruder)
        .await;
    let Err(error) = refused else {
        return Err(Failure::Broken("a live id was taken".to_owned()));
    };
    ensure(error.kind() == ErrorKind::Conflict, || {
        error.report().to_string()
    })?;
    ensure(error.holder() == Some(&Holder::from(&owner)), || {
        format!("{:?} holds it, and {:?} was told", owner, error.holder())
    })?;
    let took = start.elapsed();
    ensure(took < Duration::from_secs(5), || {
        format!("it took {took:?} to refuse another address")
    })
}

async fn an_earlier_run_at_the_same_address_is_waited_out(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let ttl = fixture.ttl();
    let crashed = scene.instance("a")?;
    let sent = Instant::now();
    let attempt = Attempt::new(ttl);
    let held = scene.registrar.register(&crashed, &attempt).await?;
    let next = crashed.clone().with_incarnation(Incarnation::random());
    let registry = registry_over(&scene.reader, within(fixture.expiry_slack(), ttl));
    let guard = registry.register(next.clone()).await?;
    let took = sent.elapsed();
    ensure(took >= ttl, || {
        format!("{:?} was replaced after {took:?}", held.liveness())
    })?;
    scene
        .ensure_lists("after the earlier run was waited out", &[next])
        .await?;
    guard.deregister().await?;
    Ok(())
}

async fn a_living_run_at_the_same_address_keeps_its_record(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let ttl = fixture.ttl();
    let owner = scene.instance("a")?;
    let registry = registry_over(&scene.writer, within(Duration::from_secs(10), ttl));
    let guard = registry.register(owner.clone()).await?;
    let twin = owner.clone().with_incarnation(Incarnation::random());
    let refused = registry_over(&scene.reader, within(ttl, ttl))
        .register(twin)
        .await;
    let is_conflict = |error: &sd_core::Error| error.kind() == ErrorKind::Conflict;
    ensure(refused.as_ref().is_err_and(is_conflict), || {
        format!("a second run at the address of one that lives: {refused:?}")
    })?;
    ensure(guard.phase() == RegistrationPhase::Registered, || {
        format!("the one that lives is {:?}", guard.phase())
    })?;
    scene
        .ensure_still_lists("after a twin gave up", &[owner])
        .await?;
    guard.deregister().await?;
    Ok(())
}

async fn a_released_record_is_continued_by_another_client(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let ttl = fixture.ttl();
    let first = scene.instance("a")?;
    let config = within(Duration::from_secs(10), ttl);
    let old = registry_over(&scene.writer, config.clone());
    let record = old.register(first.clone()).await?.release().await?;
    old.close_keeping_records().await?;
    scene
        .ensure_still_lists("after it was released", std::slice::from_ref(&first))
        .await?;

    // As another process would make it of the record's id.
    let endpoint = first.endpoint().clone();
    let next = Instance::of_run(record.service, record.id, record.incarnation, endpoint);
    let next = next.with_metadata("version", "2");
    let new = registry_over(&fixture.backend().await?, config);
    let guard = new.register(next.clone()).await?;
    let continued = Instant::now();
    while continued.elapsed() < ttl * 2 {
        let when = format!("{:?} after it was continued", continued.elapsed());
        scene
            .ensure_lists(&when, std::slice::from_ref(&next))
            .await?;
        sleep(ttl / 10).await;
    }
    guard.deregister().await?;
    scene.ensure_lists("after its end", &[]).await
}
