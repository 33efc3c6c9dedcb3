//! What a registration guard does while its server refuses, fails, hangs, forgets and comes back. The clock is paused.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sd_core::clock::TokioClock;
use sd_core::memory::Memory;
use sd_core::port::Attempt;
use sd_core::{
    Error, ErrorKind, Holder, Incarnation, Instance, InstanceId, Registrar, RegistrationConfig,
    RegistrationEvent, RegistrationGuard, RegistrationPhase, Registry, RegistryConfig,
};
use sd_testing::{Answer, Op, ScriptedBackend, ScriptedRegistrar};
use tokio::time::{Instant, sleep, timeout};

const TTL: Duration = sd_core::RegistrationConfig::DEFAULT_TTL;
const MILLIS: Duration = Duration::from_millis(1);

fn instance(id: &str) -> Instance {
    let instance = Instance::new("s", "10.0.0.7:50051").unwrap();
    instance.with_id(InstanceId::new(id).unwrap())
}

fn registry() -> (Registry, ScriptedRegistrar) {
    registry_over(ScriptedRegistrar::default())
}

fn registry_over(registrar: ScriptedRegistrar) -> (Registry, ScriptedRegistrar) {
    let mut backend = ScriptedBackend::default();
    backend.registrar = registrar.clone();
    let config = RegistryConfig::default().with_clock(Arc::new(TokioClock));
    (Registry::with_config(Arc::new(backend), config), registrar)
}

async fn registered() -> (Registry, ScriptedRegistrar, RegistrationGuard) {
    let (registry, registrar) = registry();
    let mut guard = registry.register(instance("a")).await.unwrap();
    assert_eq!(event(&mut guard).await, "registered");
    (registry, registrar, guard)
}

fn fail(kind: ErrorKind) -> Answer {
    Answer::Fail(Error::new(kind, "scripted").because("it was written so"))
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(3600);
    timeout(limit, what).await.expect("something never happens")
}

async fn event(guard: &mut RegistrationGuard) -> &'static str {
    let event = soon(guard.next_event()).await;
    event.map_or("none", |event| event.as_str())
}

/// Reads events until one of this name.
async fn event_named(guard: &mut RegistrationGuard, name: &str) -> RegistrationEvent {
    soon(async {
        loop {
            let event = guard.next_event().await.unwrap();
            if event.as_str() == name {
                return event;
            }
        }
    })
    .await
}

async fn nothing_is_kept(registry: &Registry) {
    soon(async {
        while !registry.dump().registrations.is_empty() {
            sleep(MILLIS).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn register_returns_when_the_server_has_confirmed() {
    let (registry, registrar) = registry();
    registrar.answer_next(Op::Register, Answer::SucceedAfter(Duration::from_secs(1)));
    let start = Instant::now();
    let mut guard = registry.register(instance("a")).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(guard.phase(), RegistrationPhase::Registered);
    assert_eq!(event(&mut guard).await, "registered");
    let calls = registrar.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].instance.as_ref(), Some(&*guard.instance()));
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_told_at_once_and_leaves_nothing_behind() {
    let (registry, registrar) = registry();
    registrar.answer_next(Op::Register, fail(ErrorKind::Conflict));
    let start = Instant::now();
    let error = registry.register(instance("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(start.elapsed(), Duration::ZERO);
    // The outcome of an attempt is never certain: it is cleaned up, conditionally.
    soon(registrar.called(Op::Withdraw, 1)).await;
    nothing_is_kept(&registry).await;
    assert_eq!(registrar.calls_of(Op::Register).len(), 1);
}

/// Another run of the same instance, at its address or at another one.
fn another_run(address: &str) -> Instance {
    let other = instance("a").with_incarnation(Incarnation::random());
    other.with_endpoint(address.parse().unwrap())
}

fn held_by(other: &Instance) -> Answer {
    Answer::Fail(Error::new(ErrorKind::Conflict, "scripted").held_by(other))
}

#[tokio::test(start_paused = true)]
async fn register_waits_for_the_record_of_an_earlier_run_at_its_address_to_go() {
    let (memory, start) = (Memory::with_clock(Arc::new(TokioClock)), Instant::now());
    let crashed = another_run("10.0.0.7:50051");
    let registrar = memory.backend();
    registrar
        .register(&crashed, &Attempt::new(TTL))
        .await
        .unwrap();
    let mut guard = memory.connect().register(instance("a")).await.unwrap();
    let took = start.elapsed();
    assert!(
        took >= TTL && took <= TTL + Duration::from_millis(1100),
        "{took:?}"
    );
    let told = guard.next_event().await.unwrap();
    let holder = told.error().and_then(Error::holder).cloned();
    assert_eq!(told.as_str(), "retrying");
    assert_eq!(holder, Some(Holder::from(&crashed)));
    event_named(&mut guard, "registered").await;
}

#[tokio::test(start_paused = true)]
async fn register_gives_up_on_a_run_at_its_address_that_outlasts_a_ttl() {
    let (registry, registrar) = registry();
    let alive = another_run("10.0.0.7:50051");
    registrar.answer_all(Op::Register, held_by(&alive));
    let start = Instant::now();
    let error = registry.register(instance("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(error.holder(), Some(&Holder::from(&alive)));
    let bound = RegistrationConfig::default().confirm_within + TTL;
    let took = start.elapsed();
    assert!(
        took <= bound && took + Duration::from_millis(1100) >= bound,
        "{took:?}"
    );
    nothing_is_kept(&registry).await;
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_told_though_the_bound_cuts_the_last_attempt_short() {
    let alive = another_run("10.0.0.7:50051");
    let conflict = Error::new(ErrorKind::Conflict, "scripted").held_by(&alive);
    // Where the bound falls, depends on chance.
    for _ in 0..50 {
        let (registry, registrar) = registry();
        let slowly = Answer::FailAfter(Duration::from_secs(1), conflict.clone());
        registrar.answer_all(Op::Register, slowly);
        let error = registry.register(instance("a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
    }
}

#[tokio::test(start_paused = true)]
async fn register_does_not_wait_for_a_run_at_another_address_and_the_background_does() {
    let (registry, registrar) = registry();
    registrar.answer_all(Op::Register, held_by(&another_run("10.0.0.8:50051")));
    let start = Instant::now();
    let error = registry.register(instance("a")).await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(error.report().to_string().contains("10.0.0.8:50051"));

    let mut guard = registry.register(instance("b")).in_background().unwrap();
    event_named(&mut guard, "retrying").await;
    sleep(Duration::from_secs(3600)).await;
    registrar.answer_all(Op::Register, Answer::Succeed);
    event_named(&mut guard, "registered").await;
}

#[tokio::test(start_paused = true)]
async fn a_registrar_is_told_whether_the_registration_was_confirmed_before() {
    let (_registry, registrar, mut guard) = registered().await;
    registrar.lose(Error::new(ErrorKind::Conflict, "scripted"));
    event_named(&mut guard, "lost").await;
    event_named(&mut guard, "registered").await;
    let calls = registrar.calls_of(Op::Register).into_iter();
    let told: Vec<bool> = calls
        .map(|call| call.attempt.unwrap().was_confirmed)
        .collect();
    assert_eq!(told, [false, true]);
}

#[tokio::test(start_paused = true)]
async fn register_tries_again_while_the_server_is_unavailable() {
    let (registry, registrar) = registry();
    for _ in 0..4 {
        registrar.answer_next(Op::Register, fail(ErrorKind::Unavailable));
    }
    let mut guard = registry.register(instance("a")).await.unwrap();
    for _ in 0..4 {
        assert_eq!(event(&mut guard).await, "retrying");
    }
    assert_eq!(event(&mut guard).await, "registered");
    assert_eq!(registrar.calls_of(Op::Register).len(), 5);
}

#[tokio::test(start_paused = true)]
async fn register_gives_up_within_its_bound_and_cleans_up() {
    for (answer, kind) in [
        (fail(ErrorKind::Unavailable), ErrorKind::Unavailable),
        (Answer::Hang, ErrorKind::Timeout),
    ] {
        let (registry, registrar) = registry();
        registrar.answer_all(Op::Register, answer);
        let start = Instant::now();
        let error = registry.register(instance("a")).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        let took = start.elapsed();
        assert!(took <= Duration::from_secs(10) + 10 * MILLIS, "{took:?}");
        soon(registrar.called(Op::Withdraw, 1)).await;
        nothing_is_kept(&registry).await;
        let attempts = registrar.calls_of(Op::Register).len();
        sleep(Duration::from_secs(60)).await;
        assert_eq!(registrar.calls_of(Op::Register).len(), attempts);

        registrar.answer_all(Op::Register, Answer::Succeed);
        registry.register(instance("a")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_register_that_is_dropped_withdraws() {
    let (registry, registrar) = registry();
    registrar.answer_all(Op::Register, Answer::Hang);
    let dropped = timeout(Duration::from_secs(1), registry.register(instance("a"))).await;
    assert!(dropped.is_err());
    soon(registrar.called(Op::Withdraw, 1)).await;
    nothing_is_kept(&registry).await;
}

#[tokio::test(start_paused = true)]
async fn a_background_registration_outlives_a_registry_that_is_down() {
    let (registry, registrar) = registry();
    registrar.answer_all(Op::Register, fail(ErrorKind::Unavailable));
    let mut guard = registry.register(instance("a")).in_background().unwrap();
    let first = event_named(&mut guard, "retrying").await;
    assert_eq!(first.error().unwrap().kind(), ErrorKind::Unavailable);
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(guard.phase(), RegistrationPhase::Registering);
    guard_wants(&registry, "unavailable");

    registrar.answer_all(Op::Register, Answer::Succeed);
    let back_at = Instant::now();
    event_named(&mut guard, "registered").await;
    assert!(back_at.elapsed() <= TTL / 3 + 10 * MILLIS);
}

#[tokio::test(start_paused = true)]
async fn an_id_is_new_for_the_first_attempt_alone_and_only_if_it_holds_the_incarnation() {
    let (registry, registrar) = registry();
    let random = Instance::new("svc", "10.0.0.1:8080").unwrap();
    let chosen = random.clone().with_id(InstanceId::new("a").unwrap());
    let another_run = random.clone().with_incarnation(Incarnation::random());
    let moved = random
        .clone()
        .with_endpoint("10.0.0.2:8080".parse().unwrap());
    let counted = random
        .clone()
        .with_incarnation(Incarnation::from_u64(2))
        .with_id(InstanceId::new("10.0.0.1:8080-00000000").unwrap());
    for (instance, first) in [
        (random, true),
        (chosen, false),
        (another_run, false),
        (moved, false),
        (counted, false),
    ] {
        let before = registrar.calls_of(Op::Register).len();
        registrar.answer_next(Op::Register, fail(ErrorKind::Timeout));
        let guard = registry.register(instance).await.unwrap();
        let calls = registrar.calls_of(Op::Register).into_iter().skip(before);
        let new: Vec<bool> = calls.map(|call| call.attempt.unwrap().id_is_new).collect();
        assert_eq!(new, [first, false]);
        guard.deregister().await.unwrap();
    }
}

fn guard_wants(registry: &Registry, error: &str) {
    let dump = serde_json::to_value(registry.dump()).unwrap();
    let registration = &dump["registrations"][0];
    assert_eq!(registration["instance"]["id"], "a");
    assert_eq!(registration["phase"], "registering");
    assert!(registration["for_seconds"].as_f64().unwrap() >= 3599.0);
    let text = registration["error"].as_str().unwrap();
    assert!(
        text.contains(error) && text.contains("it was written so"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_in_the_background_is_given_up() {
    let (registry, registrar) = registry();
    registrar.answer_next(Op::Register, Answer::Hang);
    let mut guard = registry.register(instance("a")).in_background().unwrap();
    let event = event_named(&mut guard, "retrying").await;
    assert_eq!(event.error().unwrap().kind(), ErrorKind::Timeout);
    event_named(&mut guard, "registered").await;
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_can_never_succeed_ends_with_the_reason() {
    let (registry, registrar) = registry();
    registrar.answer_all(Op::Register, fail(ErrorKind::Unsupported));
    let mut guard = registry.register(instance("a")).in_background().unwrap();
    let last = event_named(&mut guard, "failed").await;
    assert_eq!(last.error().unwrap().kind(), ErrorKind::Unsupported);
    assert_eq!(event(&mut guard).await, "none");
    assert_eq!(guard.phase(), RegistrationPhase::Ended);
    let error = guard.deregister().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

/// Fails unless the record is renewed three times within its time-to-live.
fn renewals_are_in_time(registrar: &ScriptedRegistrar, slack: Duration) {
    let renewals = registrar.calls_of(Op::Renew);
    assert!(renewals.len() >= 10, "{}", renewals.len());
    for pair in renewals.windows(2) {
        let gap = pair[1].at - pair[0].at;
        assert!(gap <= TTL / 3 * 11 / 10 + slack, "{gap:?}");
        assert!(gap + slack >= TTL / 3 * 9 / 10, "{gap:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_is_renewed_three_times_within_its_ttl() {
    let (_registry, registrar, guard) = registered().await;
    soon(registrar.called(Op::Renew, 30)).await;
    renewals_are_in_time(&registrar, 5 * MILLIS);
    assert_eq!(guard.phase(), RegistrationPhase::Registered);
    assert_eq!(registrar.calls_of(Op::Register).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn constant_updates_do_not_starve_renewals() {
    let (_registry, registrar, guard) = registered().await;
    let slow = Duration::from_millis(200);
    registrar.answer_all(Op::Update, Answer::SucceedAfter(slow));
    let updating = async {
        for round in 0u64.. {
            let change = move |i: Instance| i.with_metadata("round", round.to_string());
            guard.update(change).await.unwrap();
        }
    };
    tokio::select! {
        () = updating => {}
        _ = soon(registrar.called(Op::Renew, 30)) => {}
    }
    renewals_are_in_time(&registrar, slow + 5 * MILLIS);
    assert!(registrar.calls_of(Op::Update).len() > 100);
}

#[tokio::test(start_paused = true)]
async fn updates_that_fail_do_not_starve_renewals_and_do_not_hurry() {
    let (_registry, registrar, guard) = registered().await;
    registrar.answer_all(Op::Update, fail(ErrorKind::Denied));
    let error = guard.set_ready(false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let why = error.report().to_string();
    assert!(why.contains("denied: it was written so"), "{why}");
    soon(registrar.called(Op::Renew, 30)).await;
    renewals_are_in_time(&registrar, 5 * MILLIS);
    let updates = registrar.calls_of(Op::Update).len();
    assert!((30..200).contains(&updates), "{updates} in 100 s");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_survived_failed_renewals_is_not_registered_again() {
    for answer in [fail(ErrorKind::Unavailable), Answer::Hang] {
        let (_registry, registrar, mut guard) = registered().await;
        for _ in 0..3 {
            registrar.answer_next(Op::Renew, answer.clone());
        }
        let risk = event_named(&mut guard, "at_risk").await;
        assert!(risk.error().is_some());
        assert_eq!(guard.phase(), RegistrationPhase::AtRisk);
        assert_eq!(event(&mut guard).await, "recovered");
        assert_eq!(guard.phase(), RegistrationPhase::Registered);
        soon(registrar.called(Op::Renew, 10)).await;
        assert_eq!(registrar.calls_of(Op::Register).len(), 1);
        assert!(registrar.calls_of(Op::Withdraw).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_record_is_registered_again_with_what_is_wanted_by_then() {
    for kind in [
        ErrorKind::LeaseLost,
        ErrorKind::NotFound,
        ErrorKind::Conflict,
    ] {
        let (_registry, registrar, mut guard) = registered().await;
        registrar.answer_all(Op::Update, fail(ErrorKind::Unavailable));
        registrar.answer_next(Op::Renew, fail(kind));
        registrar.answer_next(Op::Register, fail(ErrorKind::Unavailable));
        let wanted = guard.update(|i| i.with_metadata("k", "newest"));
        soon(wanted).await.unwrap();
        let lost = event_named(&mut guard, "lost").await;
        assert_eq!(lost.error().unwrap().kind(), kind);
        assert_eq!(event(&mut guard).await, "retrying");
        assert_eq!(event(&mut guard).await, "registered");
        assert_eq!(event(&mut guard).await, "updated");
        let again = registrar.calls_of(Op::Register).pop().unwrap();
        assert_eq!(again.instance.as_ref(), Some(&*guard.instance()));
        assert_eq!(guard.instance().metadata()["k"], "newest");
    }
}

#[tokio::test(start_paused = true)]
async fn a_loss_that_the_server_tells_is_mended_at_once() {
    let (_registry, registrar, mut guard) = registered().await;
    let told_at = Instant::now();
    registrar.lose(Error::new(ErrorKind::LeaseLost, "scripted"));
    assert_eq!(event(&mut guard).await, "lost");
    assert_eq!(event(&mut guard).await, "registered");
    // Not together with all others that lost theirs, but soon.
    assert!(told_at.elapsed() <= Duration::from_secs(1) + MILLIS);
    assert_eq!(registrar.calls_of(Op::Register).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_loss_that_is_told_while_a_renewal_hangs_is_mended_at_once() {
    let (_registry, registrar, mut guard) = registered().await;
    registrar.answer_next(Op::Renew, Answer::Hang);
    soon(registrar.called(Op::Renew, 1)).await;
    sleep(MILLIS).await;
    let told_at = Instant::now();
    registrar.lose(Error::new(ErrorKind::LeaseLost, "scripted"));
    assert_eq!(event(&mut guard).await, "lost");
    assert_eq!(told_at.elapsed(), Duration::ZERO);
    assert_eq!(event(&mut guard).await, "registered");
    assert!(told_at.elapsed() <= Duration::from_secs(1) + MILLIS);
}

#[tokio::test(start_paused = true)]
async fn what_a_session_kept_is_told_at_once_and_back_once_and_spread() {
    const RECORDS: usize = 50;
    let scripted = ScriptedRegistrar::default().with_session(TTL);
    let (registry, registrar) = registry_over(scripted);
    let mut guards = Vec::new();
    for number in 0..RECORDS {
        let instance = instance(&format!("i{number}"));
        guards.push(registry.register(instance).await.unwrap());
    }
    let told_at = Instant::now();
    registrar.lose_all(Error::new(ErrorKind::LeaseLost, "the session ended"));
    for guard in &mut guards {
        event_named(guard, "lost").await;
    }
    assert_eq!(told_at.elapsed(), Duration::ZERO);
    for guard in &mut guards {
        assert_eq!(event(guard).await, "registered");
    }
    sleep(Duration::from_secs(60)).await;
    let calls = registrar.calls_of(Op::Register).split_off(RECORDS);
    assert_eq!(calls.len(), RECORDS);
    let after: Vec<Duration> = calls.iter().map(|call| call.at - told_at).collect();
    let (first, last) = (after.iter().min().unwrap(), after.iter().max().unwrap());
    assert!(*last <= Duration::from_secs(1) + MILLIS, "{after:?}");
    assert!(
        last.abs_diff(*first) > Duration::from_millis(300),
        "{after:?}"
    );
    registry.close().await.unwrap();
}

/// A session grants what it has, and a third of that counts.
#[tokio::test(start_paused = true)]
async fn what_a_short_session_kept_is_back_within_a_third_of_what_was_granted() {
    let granted = TTL / 5;
    let (registry, registrar) = registry_over(ScriptedRegistrar::default().with_session(granted));
    let mut guard = registry.register(instance("a")).await.unwrap();
    registrar.answer_all(Op::Register, fail(ErrorKind::Unavailable));
    registrar.lose_all(Error::new(ErrorKind::LeaseLost, "the session ended"));
    event_named(&mut guard, "lost").await;
    sleep(TTL * 5).await;
    registrar.answer_all(Op::Register, Answer::Succeed);
    let back = Instant::now();
    event_named(&mut guard, "registered").await;
    assert!(
        back.elapsed() <= granted / 3 + MILLIS,
        "{:?}",
        back.elapsed()
    );
    let calls = registrar.calls_of(Op::Register);
    let gaps = calls[1..].windows(2).map(|calls| calls[1].at - calls[0].at);
    let longest = gaps.max().unwrap();
    assert!(longest <= granted / 3 + MILLIS, "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn an_update_returns_when_it_is_confirmed() {
    let (_registry, registrar, mut guard) = registered().await;
    registrar.answer_next(Op::Update, Answer::SucceedAfter(Duration::from_secs(1)));
    let start = Instant::now();
    guard.update(|i| i.with_weight(7)).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(event(&mut guard).await, "updated");
    let call = registrar.calls_of(Op::Update).pop().unwrap();
    assert_eq!(call.instance.unwrap().weight(), 7);
    assert_eq!(registrar.calls_of(Op::Register).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_update_stays_wanted_during_an_outage_and_is_applied_after_it() {
    let (_registry, registrar, mut guard) = registered().await;
    for op in [Op::Update, Op::Renew] {
        registrar.answer_all(op, fail(ErrorKind::Unavailable));
    }
    let start = Instant::now();
    let error = guard.set_ready(false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(start.elapsed() <= Duration::from_secs(10) + 10 * MILLIS);
    assert!(!guard.instance().is_ready());

    sleep(Duration::from_secs(5 * 60)).await;
    for op in [Op::Update, Op::Renew] {
        registrar.answer_all(op, Answer::Succeed);
    }
    let back_at = Instant::now();
    event_named(&mut guard, "updated").await;
    assert!(back_at.elapsed() <= TTL / 3 + Duration::from_secs(2));
    let call = registrar.calls_of(Op::Update).pop().unwrap();
    assert!(!call.instance.unwrap().is_ready());
    assert_eq!(registrar.calls_of(Op::Register).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_update_of_the_identity_or_beyond_the_limits_is_refused_and_not_sent() {
    let (_registry, registrar, guard) = registered().await;
    let before = guard.instance();
    let large = "x".repeat(ScriptedRegistrar::RECORD_BYTES);
    let other_run = guard.update(|i| i.with_incarnation(Incarnation::random()));
    let kind = |result: sd_core::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(other_run.await), ErrorKind::InvalidInput);
    let other_id = guard.update(|i| i.with_id(InstanceId::new("b").unwrap()));
    assert_eq!(kind(other_id.await), ErrorKind::InvalidInput);
    let too_large = guard.update(move |i| i.with_metadata("k", large));
    assert_eq!(kind(too_large.await), ErrorKind::InvalidInput);
    assert_eq!(guard.instance(), before);
    assert!(registrar.calls_of(Op::Update).is_empty());
}

#[tokio::test(start_paused = true)]
async fn draining_says_not_ready_waits_and_withdraws_in_this_order() {
    let wait = Duration::from_secs(5);
    for answer in [Answer::Succeed, fail(ErrorKind::Unavailable)] {
        let (registry, registrar, guard) = registered().await;
        registrar.answer_all(Op::Update, answer.clone());
        guard.drain(wait).await.unwrap();
        let update = &registrar.calls_of(Op::Update)[0];
        let withdrawal = &registrar.calls_of(Op::Withdraw)[0];
        assert!(!update.instance.as_ref().unwrap().is_ready());
        assert!(withdrawal.at - update.at >= wait, "{answer:?}");
        nothing_is_kept(&registry).await;
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_guard_withdraws_and_ends_the_task() {
    let alive_tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let (registry, registrar, guard) = registered().await;
    assert_eq!(alive_tasks(), 1);
    drop(guard);
    soon(registrar.called(Op::Withdraw, 1)).await;
    nothing_is_kept(&registry).await;
    sleep(MILLIS).await;
    assert_eq!(alive_tasks(), 0);
    sleep(Duration::from_secs(60)).await;
    assert!(registrar.calls_of(Op::Renew).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_hanging_renewal_does_not_keep_a_dropped_guard_registered() {
    let (registry, registrar, guard) = registered().await;
    registrar.answer_all(Op::Renew, Answer::Hang);
    soon(registrar.called(Op::Renew, 1)).await;
    let dropped_at = Instant::now();
    drop(guard);
    soon(registrar.called(Op::Withdraw, 1)).await;
    assert!(dropped_at.elapsed() <= MILLIS);
    nothing_is_kept(&registry).await;
}

#[tokio::test(start_paused = true)]
async fn deregistering_waits_for_the_confirmation_and_tries_again() {
    let (registry, registrar, guard) = registered().await;
    for _ in 0..2 {
        registrar.answer_next(Op::Withdraw, fail(ErrorKind::Unavailable));
    }
    guard.deregister().await.unwrap();
    assert_eq!(registrar.calls_of(Op::Withdraw).len(), 3);
    nothing_is_kept(&registry).await;
}

#[tokio::test(start_paused = true)]
async fn deregistering_from_a_silent_server_is_an_error_within_its_bound() {
    for answer in [Answer::Hang, fail(ErrorKind::Unavailable)] {
        let (registry, registrar, guard) = registered().await;
        registrar.answer_all(Op::Withdraw, answer);
        let start = Instant::now();
        let error = guard.deregister().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let took = start.elapsed();
        assert!(took <= Duration::from_secs(3) + 10 * MILLIS, "{took:?}");
        nothing_is_kept(&registry).await;
    }
}

/// Each write takes 4 s, as one of Cloud Map may.
fn slow_registry(attempt: Duration) -> (Registry, ScriptedRegistrar) {
    let slow = ScriptedRegistrar::default().with_permanent_records(Duration::from_secs(30));
    let (registry, registrar) = registry_over(slow.with_attempt(attempt));
    for op in [Op::Register, Op::Renew, Op::Update, Op::Withdraw] {
        registrar.answer_all(op, Answer::SucceedAfter(Duration::from_secs(4)));
    }
    (registry, registrar)
}

#[tokio::test(start_paused = true)]
async fn writes_that_take_as_long_as_the_backend_says_are_waited_for() {
    let (registry, registrar) = slow_registry(Duration::from_secs(6));
    let mut guard = registry.register(instance("a")).await.unwrap();
    assert_eq!(event(&mut guard).await, "registered");
    guard.set_ready(false).await.unwrap();
    soon(registrar.called(Op::Renew, 3)).await;
    guard.deregister().await.unwrap();
    for op in [Op::Register, Op::Update, Op::Withdraw] {
        assert_eq!(registrar.calls_of(op).len(), 1, "{op:?}");
    }

    let guard = registry.register(instance("b")).await.unwrap();
    guard.drain(MILLIS).await.unwrap();
    let last = registrar.calls_of(Op::Update).pop().unwrap();
    assert!(!last.instance.unwrap().is_ready());

    let mut guard = registry.register(instance("c")).await.unwrap();
    registry.close().await.unwrap();
    event_named(&mut guard, "withdrawn").await;
}

#[tokio::test(start_paused = true)]
async fn one_write_may_take_longer_than_the_bound_for_confirming() {
    let (registry, registrar) = slow_registry(Duration::from_secs(15));
    registrar.answer_all(Op::Register, Answer::SucceedAfter(Duration::from_secs(14)));
    registry.register(instance("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_error_of_withdrawing_says_what_becomes_of_the_record() {
    let permanent = ScriptedRegistrar::default().with_permanent_records(TTL);
    for (registrar, told) in [
        (ScriptedRegistrar::default(), "renewed within 10s"),
        (permanent, "stays until it is withdrawn"),
    ] {
        for answer in [Answer::Hang, fail(ErrorKind::Unavailable)] {
            let (registry, registrar) = registry_over(registrar.clone());
            let guard = registry.register(instance("a")).await.unwrap();
            registrar.answer_all(Op::Withdraw, answer);
            let error = guard.deregister().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
            let report = error.report().to_string();
            assert!(report.contains(told), "{report}");
            registrar.answer_all(Op::Withdraw, Answer::Succeed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_instance_with_an_id_of_this_process_is_refused_and_not_sent() {
    let (registry, registrar, guard) = registered().await;
    let error = registry.register(instance("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(registrar.calls_of(Op::Register).len(), 1);
    registry.register(instance("b")).await.unwrap();

    guard.deregister().await.unwrap();
    registry.register(instance("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_registration_waits_until_its_predecessor_has_withdrawn() {
    let slowly = Answer::SucceedAfter(Duration::from_secs(1));
    let (registry, registrar, guard) = registered().await;
    registrar.answer_all(Op::Withdraw, slowly.clone());
    drop(guard);
    // Until then its record would be a conflict.
    let guard = registry.register(instance("a")).await.unwrap();
    let withdrawn_at = registrar.calls_of(Op::Withdraw)[0].at;
    let registered_at = registrar.calls_of(Op::Register)[1].at;
    assert!(registered_at >= withdrawn_at + Duration::from_secs(1));
    assert_eq!(registry.dump().registrations.len(), 1);
    drop(guard);

    let (registry, registrar) = self::registry();
    registrar.answer_all(Op::Withdraw, slowly);
    registrar.answer_next(Op::Register, fail(ErrorKind::Denied));
    let same_run = instance("a");
    registry.register(same_run.clone()).await.unwrap_err();
    // What cleans up after the first attempt must not remove the second one's record.
    let _guard = registry.register(same_run).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    let (last, before) = (
        registrar.calls_of(Op::Register)[1].at,
        registrar.calls_of(Op::Withdraw),
    );
    assert_eq!(before.len(), 1);
    assert!(last >= before[0].at + Duration::from_secs(1));
    assert_eq!(registry.dump().registrations.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_registration_waits_for_the_predecessor_of_one_that_gave_up() {
    let (registry, registrar, guard) = registered().await;
    let slowly = Duration::from_secs(2);
    registrar.answer_all(Op::Withdraw, Answer::SucceedAfter(slowly));
    drop(guard);
    let impatient = timeout(Duration::from_millis(500), registry.register(instance("a")));
    assert!(impatient.await.is_err());
    let _guard = registry.register(instance("a")).await.unwrap();
    let withdrawn_at = registrar.calls_of(Op::Withdraw)[0].at + slowly;
    assert!(registrar.calls_of(Op::Register)[1].at >= withdrawn_at);
}

#[tokio::test(start_paused = true)]
async fn an_update_that_the_server_refuses_for_good_is_told_and_given_up() {
    let (_registry, registrar, mut guard) = registered().await;
    registrar.answer_next(Op::Update, fail(ErrorKind::InvalidInput));
    let error = guard.set_ready(false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(guard.instance().is_ready());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(registrar.calls_of(Op::Update).len(), 1);

    // Refused only when it is registered again: the record that was confirmed comes back.
    registrar.answer_all(Op::Update, fail(ErrorKind::Unavailable));
    guard.set_ready(false).await.unwrap_err();
    registrar.answer_next(Op::Register, fail(ErrorKind::InvalidInput));
    registrar.lose(Error::new(ErrorKind::LeaseLost, "scripted"));
    event_named(&mut guard, "lost").await;
    event_named(&mut guard, "registered").await;
    assert!(guard.instance().is_ready());
}

#[tokio::test(start_paused = true)]
async fn an_update_does_not_hide_that_renewals_fail() {
    let (_registry, registrar, mut guard) = registered().await;
    registrar.answer_all(Op::Renew, fail(ErrorKind::Unavailable));
    event_named(&mut guard, "at_risk").await;
    guard.set_ready(false).await.unwrap();
    assert_eq!(guard.phase(), RegistrationPhase::AtRisk);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_panics_changes_nothing() {
    let (_registry, registrar, guard) = registered().await;
    let error = guard.update(|_| panic!("on purpose")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    guard.set_ready(false).await.unwrap();
    soon(registrar.called(Op::Renew, 3)).await;
    assert_eq!(guard.phase(), RegistrationPhase::Registered);
}

#[tokio::test(start_paused = true)]
async fn draining_at_a_server_that_does_not_answer_is_bounded() {
    let (_registry, registrar, guard) = registered().await;
    registrar.answer_all(Op::Update, Answer::Hang);
    registrar.answer_all(Op::Withdraw, Answer::Hang);
    let start = Instant::now();
    guard.drain(Duration::from_secs(5)).await.unwrap_err();
    assert!(
        start.elapsed() < Duration::from_secs(12),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn what_can_never_work_is_refused_before_anything_is_sent() {
    let (registry, registrar) = registry();
    let large = "x".repeat(ScriptedRegistrar::RECORD_BYTES);
    let oversized = instance("a").with_metadata("k", large);
    let error = registry.register(oversized).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    for ttl in [Duration::ZERO, Duration::from_secs(3600)] {
        let result = registry.register(instance("a")).ttl(ttl).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
        let result = registry.register(instance("a")).ttl(ttl).in_background();
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    sleep(Duration::from_secs(60)).await;
    assert!(registrar.calls().is_empty());
    nothing_is_kept(&registry).await;
}

#[tokio::test(start_paused = true)]
async fn closing_the_registry_withdraws_everything_and_refuses_more() {
    let (registry, registrar, mut guard) = registered().await;
    let _other = registry.register(instance("b")).await.unwrap();
    registry.close().await.unwrap();
    assert_eq!(registrar.calls_of(Op::Withdraw).len(), 2);
    assert_eq!(event(&mut guard).await, "withdrawn");
    assert_eq!(event(&mut guard).await, "none");
    let error = guard.set_ready(false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    let error = registry.register(instance("c")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(registrar.calls_of(Op::Register).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_released_record_is_left_and_not_renewed() {
    let (registry, registrar, guard) = registered().await;
    let record = guard.record_id().clone();
    assert_eq!(guard.release().await.unwrap(), record);
    nothing_is_kept(&registry).await;
    sleep(Duration::from_secs(60)).await;
    let ops: Vec<Op> = registrar.calls().iter().map(|call| call.op).collect();
    assert_eq!(ops, [Op::Register, Op::Release]);

    let (_registry, registrar, guard) = registered().await;
    assert!(guard.release().now_or_never().is_none());
    soon(registrar.called(Op::Release, 1)).await;
    sleep(Duration::from_secs(60)).await;
    assert!(registrar.calls_of(Op::Withdraw).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_left_is_withdrawn() {
    let (registry, registrar) = registry();
    registrar.answer_all(Op::Register, fail(ErrorKind::Unavailable));
    let mut guard = registry.register(instance("a")).in_background().unwrap();
    event_named(&mut guard, "retrying").await;
    let error = guard.release().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(registrar.calls_of(Op::Withdraw).len(), 1);

    let (_registry, registrar, guard) = registered().await;
    registrar.answer_all(Op::Release, fail(ErrorKind::Unsupported));
    let error = guard.release().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(registrar.calls_of(Op::Withdraw).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_closes_can_leave_its_records() {
    let (registry, registrar, mut guard) = registered().await;
    registrar.answer_next(Op::Register, Answer::Hang);
    let mut unconfirmed = registry.register(instance("b")).in_background().unwrap();
    soon(registrar.called(Op::Register, 2)).await;
    registry.close_keeping_records().await.unwrap();
    assert_eq!(event(&mut guard).await, "released");
    assert_eq!(event(&mut guard).await, "none");
    event_named(&mut unconfirmed, "withdrawn").await;
    assert_eq!(registrar.calls_of(Op::Release).len(), 1);
    assert_eq!(registrar.calls_of(Op::Withdraw).len(), 1);
    let error = registry.register(instance("c")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_an_operator_deleted_is_back_in_time() {
    let memory = Memory::new();
    let registry = memory.connect();
    let mut guard = registry.register(instance("a")).await.unwrap();
    let mut readers = memory.connect().subscribe("s").unwrap();
    soon(readers.changed()).await.unwrap();
    sleep(Duration::from_secs(60)).await;

    assert!(memory.operator().remove(guard.record_id()));
    let removed_at = Instant::now();
    let state = soon(readers.changed()).await.unwrap();
    assert!(state.snapshot().is_empty());
    event_named(&mut guard, "lost").await;
    let state = soon(readers.changed()).await.unwrap();
    assert_eq!(state.snapshot().instances()[0], guard.instance());
    assert!(removed_at.elapsed() <= TTL / 3 + Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_panics_is_an_error_of_that_attempt() {
    let (registry, registrar) = registry();
    registrar.answer_next(Op::Register, Answer::Panic);
    let mut guard = registry.register(instance("a")).in_background().unwrap();
    let retrying = event_named(&mut guard, "retrying").await;
    let why = retrying.error().unwrap().report().to_string();
    assert!(why.contains("panicked: it was written so"), "{why}");
    event_named(&mut guard, "registered").await;

    registrar.answer_next(Op::Renew, Answer::Panic);
    event_named(&mut guard, "at_risk").await;
    event_named(&mut guard, "recovered").await;
    registrar.answer_next(Op::Update, Answer::Panic);
    soon(guard.set_ready(false)).await.unwrap();
    registrar.answer_next(Op::Withdraw, Answer::Panic);
    soon(guard.deregister()).await.unwrap();
    assert_eq!(registrar.calls_of(Op::Withdraw).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_server_refuses_ends_register_at_once_and_nothing_in_the_background() {
    let (registry, registrar) = registry();
    registrar.answer_all(Op::Register, fail(ErrorKind::Rejected));
    let start = Instant::now();
    let error = registry.register(instance("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(start.elapsed() < Duration::from_secs(1));

    let mut guard = registry.register(instance("b")).in_background().unwrap();
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(6) {
        let retrying = event_named(&mut guard, "retrying").await;
        assert_eq!(retrying.error().unwrap().kind(), ErrorKind::Rejected);
    }
    registrar.answer_all(Op::Register, Answer::Succeed);
    let recovered = Instant::now();
    event_named(&mut guard, "registered").await;
    assert!(recovered.elapsed() <= TTL / 3);

    // Lost while the server refuses everything again.
    registrar.answer_all(Op::Register, fail(ErrorKind::Rejected));
    registrar.lose(Error::new(ErrorKind::LeaseLost, "scripted"));
    event_named(&mut guard, "retrying").await;
    registrar.answer_all(Op::Register, Answer::Succeed);
    event_named(&mut guard, "registered").await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_the_server_refuses_is_told_and_taken_back() {
    let (_registry, registrar, mut guard) = registered().await;
    registrar.answer_next(Op::Update, fail(ErrorKind::Rejected));
    let error = soon(guard.set_ready(false)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(guard.instance().is_ready());
    registrar.answer_next(Op::Renew, fail(ErrorKind::Rejected));
    event_named(&mut guard, "at_risk").await;
    event_named(&mut guard, "recovered").await;
    soon(guard.set_ready(false)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_change_that_stays_wanted_outlasts_what_a_server_refuses_meanwhile() {
    let (_registry, registrar, mut guard) = registered().await;
    registrar.answer_all(Op::Update, fail(ErrorKind::Unavailable));
    let error = guard.set_ready(false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    registrar.answer_all(Op::Update, fail(ErrorKind::Rejected));
    sleep(TTL).await;
    registrar.answer_next(Op::Register, fail(ErrorKind::Rejected));
    registrar.lose(Error::new(ErrorKind::LeaseLost, "scripted"));
    event_named(&mut guard, "registered").await;
    assert!(!guard.instance().is_ready());
    let call = registrar.calls_of(Op::Register).pop().unwrap();
    assert!(!call.instance.unwrap().is_ready());
}

#[test]
fn a_registration_whose_runtime_has_ended_says_so_and_its_id_is_free_again() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let first = runtime();
    let (registry, registrar, mut guard) = first.block_on(registered());
    drop(first);
    assert_eq!(guard.phase(), RegistrationPhase::Ended);
    // Which may keep the record alive by itself.
    assert_eq!(registrar.calls_of(Op::Abandoned).len(), 1);
    let shown = &registry.dump().registrations[0];
    let why = shown.error.clone().unwrap();
    assert!(
        why.contains("the runtime that kept the registration"),
        "{why}"
    );
    assert_eq!(registry.health().unregistered, [guard.record_id().clone()]);

    runtime().block_on(async {
        assert_eq!(event(&mut guard).await, "failed");
        assert_eq!(event(&mut guard).await, "none");
        let error = guard.registered().await.unwrap_err();
        assert!(error.report().to_string().contains("runtime"));
        drop(guard);
        assert!(registry.dump().registrations.is_empty());
        let again = registry.register(instance("a")).await.unwrap();
        assert_eq!(again.phase(), RegistrationPhase::Registered);
    });
    assert_eq!(registrar.calls_of(Op::Register).len(), 2);
}

#[test]
fn outside_a_runtime_a_call_is_an_error_and_no_panic() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
    let (registry, registrar, guard) = runtime.block_on(registered());
    let inside = runtime.enter();
    let seen = registry.subscribe("s").unwrap();
    drop(inside);
    let record = guard.record_id().clone();
    let limit = Duration::from_secs(1);
    let refused = [
        guard.set_ready(false).now_or_never(),
        guard.drain(limit).now_or_never(),
        registry.list("s").now_or_never().map(|done| done.map(drop)),
        registry
            .services()
            .now_or_never()
            .map(|done| done.map(drop)),
        registry.check().now_or_never(),
        registry.clear_override(&record).now_or_never(),
        seen.wait_until_known(limit)
            .now_or_never()
            .map(|done| done.map(drop)),
        seen.wait_until_ready(limit)
            .now_or_never()
            .map(|done| done.map(drop)),
        registry.close().now_or_never(),
    ];
    for refused in refused {
        let error = refused.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{}", error.report());
    }
    // What was drained is withdrawn on the runtime that kept it.
    runtime.block_on(soon(registrar.called(Op::Withdraw, 1)));
}
