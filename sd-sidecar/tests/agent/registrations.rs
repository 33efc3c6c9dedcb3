//! What is registered through an agent, over the embedded registry and over one that a test scripts, with a paused clock.

use std::sync::Arc;
use std::time::Duration;

use sd_core::memory::Memory;
use sd_core::{Error, ErrorKind, Instance, Registry, RegistryConfig, State, Subscription};
use sd_sidecar::daemon::registrations::{
    Caller, Entry, How, Refused, Registrations, Selector, Settings, Stage,
};
use sd_sidecar::wire::{AppInstance, CheckState, Declaration};
use sd_testing::{Answer, LONG, Op, ScriptedBackend, is_live_with, until};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

const ADDRESS: &str = "10.0.0.7:50051";
const GRACE: Duration = Duration::from_secs(20);

pub(crate) fn declared(body: Value) -> Declaration {
    serde_json::from_value(body).unwrap()
}

fn greeter() -> Declaration {
    declared(json!({"service": "greeter", "address": ADDRESS}))
}

/// As a client of the reference system declares itself.
pub(crate) fn of_run(run: &str, weight: u16) -> Declaration {
    declared(json!({
        "service": "greeter", "address": ADDRESS, "weight": weight,
        "app": {"app_id": "app", "app_instance_id": run},
        "metadata": {"run_date": run, "env": "prod"},
    }))
}

pub(crate) fn me() -> Caller {
    Caller("anonymous".into())
}

pub(crate) fn port(port: u16) -> Selector {
    Selector::Port {
        service: "greeter".to_owned(),
        port,
    }
}

fn the_record(entry: &Entry) -> Selector {
    Selector::Record {
        service: entry.record.service.to_string(),
        id: entry.record.id.to_string(),
    }
}

pub(crate) fn scripted() -> (ScriptedBackend, Registry) {
    let backend = ScriptedBackend::default();
    let config = RegistryConfig::default().with_clock(Arc::new(sd_core::clock::TokioClock));
    let registry = Registry::with_config(Arc::new(backend.clone()), config);
    (backend, registry)
}

pub(crate) fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "scripted").because("the registry is down")
}

/// Waits until an entry is as wanted.
pub(crate) async fn until_entry(
    registrations: &Registrations,
    what: &str,
    wanted: impl Fn(&Entry) -> bool,
) -> Entry {
    let mut changes = registrations.changes();
    let waiting = async {
        loop {
            changes.mark_unchanged();
            let mut entries = registrations.entries();
            entries.retain(|entry| wanted(entry));
            if let Some(entry) = entries.pop() {
                return entry;
            }
            changes.changed().await.unwrap();
        }
    };
    let found = timeout(LONG, waiting).await;
    found.unwrap_or_else(|_| panic!("no entry is {what}: {:?}", registrations.entries()))
}

fn only(state: &State) -> Instance {
    let [only] = state.snapshot().instances() else {
        panic!("not one instance: {state:?}");
    };
    only.as_ref().clone()
}

/// Every set that readers are told until it is as wanted.
async fn told_until(
    readers: &mut Subscription,
    wanted: impl Fn(&State) -> bool,
) -> Vec<Vec<Instance>> {
    let mut sets = Vec::new();
    let telling = async {
        let mut state = readers.state_and_mark_seen();
        loop {
            let set = state.snapshot().instances().iter();
            sets.push(set.map(|one| one.as_ref().clone()).collect());
            if wanted(&state) {
                return;
            }
            state = readers.changed().await.unwrap();
        }
    };
    timeout(LONG, telling).await.unwrap();
    sets
}

/// The reference system's register and deregister.
#[tokio::test(start_paused = true)]
async fn what_is_registered_is_seen_when_register_returns_and_gone_when_deregister_does() {
    let memory = Memory::new();
    let registrations = Registrations::new(memory.connect());
    let mut readers = memory.connect().subscribe("greeter").unwrap();
    let entry = registrations.register(&me(), greeter()).await.unwrap();
    assert_eq!((entry.stage, entry.error), (Stage::Serving, None));
    let seen = only(&until(&mut readers, "registered", is_live_with(1)).await);
    assert_eq!(seen.record_id(), entry.record);
    assert!(seen.is_ready());

    let gone = registrations.deregister(&me(), &port(50051)).await.unwrap();
    assert_eq!(gone[0].stage, Stage::Deregistered);
    assert_eq!(gone[0].record, entry.record);
    until(&mut readers, "gone", is_live_with(0)).await;

    // Again is fine, and shows what was.
    let again = registrations.deregister(&me(), &port(50051)).await.unwrap();
    assert_eq!(again[0].record, entry.record);
    let never = registrations.deregister(&me(), &port(1)).await.unwrap_err();
    assert!(
        matches!(&never, Refused::NotFound(why) if why == "local service not found: greeter:1")
    );
}

/// The reference system's replay.
#[tokio::test(start_paused = true)]
async fn a_replay_returns_the_same_registration_and_writes_nothing() {
    let (backend, registry) = scripted();
    let registrations = Registrations::new(registry);
    let first = registrations
        .register(&me(), of_run("r1", 3))
        .await
        .unwrap();
    let again = registrations
        .register(&me(), of_run("r1", 3))
        .await
        .unwrap();
    assert_eq!(again.record, first.record);
    assert_eq!(again.stage, Stage::Serving);
    assert_eq!(backend.registrar.calls_of(Op::Register).len(), 1);
    assert_eq!(backend.registrar.calls_of(Op::Update).len(), 0);
}

/// The reference system's parallel registers, of which it made two instances.
#[tokio::test(start_paused = true)]
async fn identical_registrations_at_the_same_time_give_one_instance() {
    let (backend, registry) = scripted();
    backend
        .registrar
        .answer_next(Op::Register, Answer::SucceedAfter(Duration::from_secs(1)));
    let registrations = Registrations::new(registry);
    let asking = (0..50).map(|_| {
        let registrations = registrations.clone();
        tokio::spawn(async move {
            registrations
                .register(&me(), greeter())
                .await
                .unwrap()
                .record
        })
    });
    let asking: Vec<_> = asking.collect();
    let mut records = Vec::new();
    for asked in asking {
        records.push(asked.await.unwrap());
    }
    records.dedup();
    assert_eq!(records.len(), 1);
    assert_eq!(backend.registrar.calls_of(Op::Register).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_changes_but_the_address_changes_in_place() {
    let memory = Memory::new();
    let registrations = Registrations::new(memory.connect());
    let mut readers = memory.connect().subscribe("greeter").unwrap();
    let first = registrations.register(&me(), greeter()).await.unwrap();
    until(&mut readers, "registered", is_live_with(1)).await;
    let changed = declared(json!({
        "service": "greeter", "address": ADDRESS, "weight": 7, "zone": "b", "version": "2", "priority": 1,
        "tags": ["blue"], "metadata": {"k": "v"},
    }));
    let entry = registrations.register(&me(), changed).await.unwrap();
    assert_eq!(
        (&entry.record, entry.stage),
        (&first.record, Stage::Serving)
    );
    let sets = told_until(&mut readers, |state| only(state).weight() == 7).await;
    assert!(sets.iter().all(|set| set.len() == 1), "{sets:?}");
    let seen = only(&readers.state());
    assert_eq!(seen.record_id(), first.record);
    assert_eq!(
        (seen.zone(), seen.version(), seen.priority()),
        (Some("b"), Some("2"), 1)
    );
    assert!(seen.tags().contains("blue") && seen.metadata()["k"] == "v");

    // It may become unready by its own word as well.
    let unready = declared(json!({"service": "greeter", "address": ADDRESS, "ready": false}));
    let entry = registrations.register(&me(), unready).await.unwrap();
    assert_eq!(entry.stage, Stage::Registered);
    until(&mut readers, "unready", |state| !only(state).is_ready()).await;
}

/// The reference system's changed request. It withdraws the old instance first.
#[tokio::test(start_paused = true)]
async fn a_changed_declaration_of_an_application_is_a_new_instance_and_readers_see_no_gap() {
    let memory = Memory::new();
    let registrations = Registrations::new(memory.connect());
    let mut readers = memory.connect().subscribe("greeter").unwrap();
    let first = registrations
        .register(&me(), of_run("r1", 3))
        .await
        .unwrap();
    until(&mut readers, "registered", is_live_with(1)).await;
    let second = registrations
        .register(&me(), of_run("r1", 4))
        .await
        .unwrap();
    assert_ne!(second.record.id, first.record.id);
    assert_eq!(second.stage, Stage::Serving);
    let sets = told_until(&mut readers, |state| {
        state.snapshot().len() == 1 && only(state).record_id() == second.record
    })
    .await;
    assert!(sets.iter().all(|set| set.len() == 1), "{sets:?}");

    // Nothing of the old one is left, for those who look at every record either.
    let (backend, registry) = scripted();
    let registrations = Registrations::new(registry);
    for weight in [3, 4] {
        registrations
            .register(&me(), of_run("r1", weight))
            .await
            .unwrap();
    }
    timeout(LONG, backend.registrar.called(Op::Withdraw, 1))
        .await
        .unwrap();
    let calls = backend.registrar.calls().into_iter().map(|call| call.op);
    let order: Vec<Op> = calls.filter(|op| *op != Op::Renew).collect();
    assert_eq!(order, [Op::Register, Op::Register, Op::Withdraw]);
    assert_eq!(registrations.entries().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_old_instance_stays_until_the_registry_has_the_new_one() {
    let (backend, registry) = scripted();
    let registrations = Registrations::new(registry);
    registrations
        .register(&me(), of_run("r1", 3))
        .await
        .unwrap();
    backend
        .registrar
        .answer_all(Op::Register, Answer::Fail(unavailable()));
    let waiting = registrations
        .register(&me(), of_run("r1", 4))
        .await
        .unwrap();
    assert_eq!(waiting.stage, Stage::Init);
    assert!(waiting.error.unwrap().contains("the registry is down"));
    assert_eq!(backend.registrar.calls_of(Op::Withdraw).len(), 0);
    backend.registrar.answer_all(Op::Register, Answer::Succeed);
    until_entry(&registrations, "serving", |entry| {
        entry.stage == Stage::Serving
    })
    .await;
    timeout(LONG, backend.registrar.called(Op::Withdraw, 1))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_registration_with_an_id_of_its_own_moves_in_place() {
    let memory = Memory::new();
    let registrations = Registrations::new(memory.connect());
    let mut readers = memory.connect().subscribe("greeter").unwrap();
    let at = |address: &str, ttl: &str| {
        declared(json!({"service": "greeter", "id": "g-1", "address": address, "ttl": ttl}))
    };
    let first = registrations
        .register(&me(), at(ADDRESS, "10s"))
        .await
        .unwrap();
    until(&mut readers, "registered", is_live_with(1)).await;
    let moved = registrations
        .register(&me(), at("10.0.0.8:1", "10s"))
        .await
        .unwrap();
    assert_eq!(moved.record, first.record);
    let sets = told_until(&mut readers, |state| {
        only(state).endpoint().to_string() == "10.0.0.8:1"
    })
    .await;
    assert!(sets.iter().all(|set| set.len() == 1), "{sets:?}");
    let refused = registrations.register(&me(), at("10.0.0.8:1", "20s")).await;
    assert!(matches!(refused, Err(Refused::Invalid(why)) if why.contains("time-to-live")));
}

/// The reference system never enforces the deadline.
#[tokio::test(start_paused = true)]
async fn a_drain_is_seen_by_readers_and_ends_at_its_deadline() {
    let memory = Memory::new();
    let registrations = Registrations::new(memory.connect());
    let mut readers = memory.connect().subscribe("greeter").unwrap();
    registrations.register(&me(), greeter()).await.unwrap();
    let begun = Instant::now();
    let drained = registrations
        .drain(&me(), &port(50051), GRACE)
        .await
        .unwrap();
    assert_eq!(drained[0].stage, Stage::Draining);
    assert!(drained[0].drain_deadline.is_some());
    let seen = until(&mut readers, "unready", |state| {
        is_live_with(1)(state) && !only(state).is_ready()
    })
    .await;
    assert_eq!(only(&seen).record_id(), drained[0].record);
    until(&mut readers, "gone", is_live_with(0)).await;
    let took = begun.elapsed();
    assert!(
        took >= GRACE && took < GRACE + Duration::from_secs(2),
        "{took:?}"
    );
    until_entry(&registrations, "gone", |entry| {
        entry.stage == Stage::Deregistered
    })
    .await;
    let nothing = registrations.drain(&me(), &port(50051), GRACE).await;
    assert!(matches!(nothing, Err(Refused::NotFound(_))));
}

/// Registers an instance, which takes the registry a while, and has its check say these meanwhile.
async fn registered_while_its_check_says(
    states: &[CheckState],
) -> (ScriptedBackend, Registrations) {
    let (backend, registry) = scripted();
    let registrations = Registrations::new(registry);
    let takes = |millis| Answer::SucceedAfter(Duration::from_millis(millis));
    backend.registrar.answer_all(Op::Register, takes(100));
    backend.registrar.answer_all(Op::Update, takes(10));
    let checked = declared(json!({
        "service": "greeter", "address": ADDRESS,
        "checks": [{"name": "beat", "kind": "ttl", "ttl": "1h"}],
    }));
    let me = me();
    let turning = async {
        for state in states {
            sleep(Duration::from_millis(30)).await;
            let beaten = registrations.beat(&me, &port(50051), "beat", *state, "");
            beaten.unwrap();
        }
    };
    let (registered, ()) = tokio::join!(registrations.register(&me, checked), turning);
    registered.unwrap();
    (backend, registrations)
}

/// Each event of an update once had the next one let go of, and sent again, without end.
#[tokio::test(start_paused = true)]
async fn a_check_that_passes_while_its_instance_is_being_registered_is_told_to_the_registry_once() {
    let (backend, registrations) = registered_while_its_check_says(&[CheckState::Passing]).await;
    until_entry(&registrations, "confirmed", |entry| {
        entry.is_confirmed && entry.stage == Stage::Serving
    })
    .await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(backend.registrar.calls_of(Op::Update).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_turns_twice_while_its_instance_is_being_registered_counts_as_it_turned_last()
{
    let turns = [CheckState::Passing, CheckState::Failing];
    let (backend, registrations) = registered_while_its_check_says(&turns).await;
    sleep(Duration::from_secs(60)).await;
    let calls = backend.registrar.calls();
    let last = calls.iter().rev().find_map(|call| call.instance.clone());
    assert!(!last.unwrap().is_ready(), "{calls:?}");
    let entry = until_entry(&registrations, "confirmed", |entry| entry.is_confirmed).await;
    assert_eq!(entry.stage, Stage::Registered);
}

#[tokio::test(start_paused = true)]
async fn before_a_stop_only_what_readers_may_have_seen_is_drained_to_its_end() {
    let (backend, registry) = scripted();
    let registrations = Registrations::new(registry);
    backend.registrar.answer_all(Op::Register, Answer::Hang);
    let never = declared(json!({"service": "never", "address": ADDRESS, "ttl": "10m"}));
    let never = registrations.register(&me(), never).await.unwrap();
    assert_eq!(never.stage, Stage::Init);
    let begin = Instant::now();
    registrations.drain_all(GRACE).await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
    registrations
        .deregister(&me(), &the_record(&never))
        .await
        .unwrap();
    backend.registrar.answer_all(Op::Register, Answer::Succeed);

    let begin = Instant::now();
    let seen = registrations.register(&me(), greeter()).await.unwrap();
    assert_eq!(seen.stage, Stage::Serving);
    registrations.drain_all(GRACE).await;
    assert!(begin.elapsed() >= GRACE, "{:?}", begin.elapsed());
    // One that its process takes out is waited for no longer.
    registrations.register(&me(), greeter()).await.unwrap();
    let begin = Instant::now();
    let leaving = async {
        sleep(GRACE / 2).await;
        let left = registrations.deregister(&me(), &port(50051)).await;
        assert_eq!(left.unwrap().len(), 1);
    };
    tokio::join!(registrations.drain_all(GRACE), leaving);
    assert_eq!(begin.elapsed().as_secs(), GRACE.as_secs() / 2);
}

#[tokio::test(start_paused = true)]
async fn draining_again_sets_another_deadline() {
    let registrations = Registrations::new(Memory::new().connect());
    registrations.register(&me(), greeter()).await.unwrap();
    let begun = Instant::now();
    for grace in [GRACE, 3 * GRACE] {
        registrations
            .drain(&me(), &port(50051), grace)
            .await
            .unwrap();
    }
    sleep(2 * GRACE).await;
    assert_eq!(registrations.entries()[0].stage, Stage::Draining);
    until_entry(&registrations, "gone", |entry| {
        entry.stage == Stage::Deregistered
    })
    .await;
    assert!(begun.elapsed() >= 3 * GRACE);
    let long = registrations
        .drain(&me(), &port(1), Duration::from_secs(86_401))
        .await;
    assert!(matches!(long, Err(Refused::Invalid(why)) if why.contains("24h")));
}

/// A client of the reference system that restarts after a drain stays in maintenance there.
#[tokio::test(start_paused = true)]
async fn a_replay_by_a_new_run_leaves_the_drain_and_one_by_the_same_run_does_not() {
    let memory = Memory::new();
    let registrations = Registrations::new(memory.connect());
    let mut readers = memory.connect().subscribe("greeter").unwrap();
    let first = registrations
        .register(&me(), of_run("r1", 3))
        .await
        .unwrap();
    registrations
        .drain(&me(), &port(50051), GRACE)
        .await
        .unwrap();
    let same = registrations
        .register(&me(), of_run("r1", 3))
        .await
        .unwrap();
    assert_eq!(same.stage, Stage::Draining);
    let next = registrations
        .register(&me(), of_run("r2", 3))
        .await
        .unwrap();
    assert_eq!((next.stage, next.drain_deadline), (Stage::Serving, None));
    assert_eq!(next.record, first.record);
    until(&mut readers, "ready", |state| {
        is_live_with(1)(state) && only(state).is_ready()
    })
    .await;
    sleep(2 * GRACE).await;
    assert_eq!(registrations.entries()[0].stage, Stage::Serving);

    // What the run before asks late does not touch the next one.
    let app = |run: &str| Selector::App {
        app: AppInstance {
            app_id: "app".to_owned(),
            app_instance_id: run.to_owned(),
        },
        service: None,
        port: None,
    };
    let late = registrations.deregister(&me(), &app("r1")).await;
    assert!(matches!(late, Err(Refused::NotFound(_))));
    assert_eq!(
        registrations
            .deregister(&me(), &app("r2"))
            .await
            .unwrap()
            .len(),
        1
    );

    // Without the name of a run, whatever registers wants calls.
    registrations.register(&me(), greeter()).await.unwrap();
    registrations
        .drain(&me(), &port(50051), GRACE)
        .await
        .unwrap();
    let again = registrations.register(&me(), greeter()).await.unwrap();
    assert_eq!(again.stage, Stage::Serving);
}

#[tokio::test(start_paused = true)]
async fn an_administrators_drain_is_not_ended_by_a_replay() {
    let registrations = Registrations::new(Memory::new().connect());
    registrations.register(&me(), greeter()).await.unwrap();
    registrations
        .drain_for(&me(), &port(50051), GRACE)
        .await
        .unwrap();
    let again = registrations.register(&me(), greeter()).await.unwrap();
    assert_eq!(again.stage, Stage::Draining);
    let mut changed = greeter();
    changed.weight = Some(7);
    let changed = registrations.register(&me(), changed).await.unwrap();
    assert_eq!(changed.stage, Stage::Serving);
}

#[tokio::test(start_paused = true)]
async fn an_administrators_drain_is_not_ended_by_a_replay_of_one_that_had_said_that_it_is_not_ready()
 {
    let (registrations, me) = (Registrations::new(Memory::new().connect()), me());
    registrations.register(&me, greeter()).await.unwrap();
    let which = port(50051);
    let unready = registrations.set_ready(&me, &which, false).await;
    unready.unwrap();
    let drained = registrations.drain_for(&me, &which, GRACE).await;
    drained.unwrap();
    let again = registrations.register(&me, greeter()).await.unwrap();
    assert_eq!(again.stage, Stage::Draining);
    // What it declares otherwise is a change.
    let mut unready = greeter();
    unready.ready = false;
    let changed = registrations.register(&me, unready).await.unwrap();
    assert_eq!(changed.stage, Stage::Registered);
}

#[tokio::test(start_paused = true)]
async fn a_replay_by_the_same_run_does_not_make_ready_what_has_said_that_it_is_not() {
    let registrations = Registrations::new(Memory::new().connect());
    let register = async |run, weight| {
        let entry = registrations.register(&me(), of_run(run, weight)).await;
        entry.unwrap().stage
    };
    assert_eq!(register("r1", 3).await, Stage::Serving);
    registrations
        .set_ready(&me(), &port(50051), false)
        .await
        .unwrap();
    assert_eq!(register("r1", 3).await, Stage::Registered);
    assert_eq!(register("r1", 4).await, Stage::Registered);
    assert_eq!(register("r2", 4).await, Stage::Serving);
}

#[tokio::test(start_paused = true)]
async fn what_a_run_declares_of_its_readiness_counts_also_after_it_was_said_by_others() {
    let registrations = Registrations::new(Memory::new().connect());
    let register = async |ready| {
        let mut declaration = of_run("r1", 3);
        declaration.ready = ready;
        let entry = registrations.register(&me(), declaration).await;
        entry.unwrap().stage
    };
    assert_eq!(register(true).await, Stage::Serving);
    registrations
        .set_ready(&me(), &port(50051), false)
        .await
        .unwrap();
    assert_eq!(register(false).await, Stage::Registered);
    assert_eq!(register(true).await, Stage::Serving);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_refused_does_not_take_back_what_was_said_of_readiness_since() {
    let (backend, registry) = scripted();
    let registrations = Registrations::new(registry);
    registrations.register(&me(), greeter()).await.unwrap();
    backend
        .registrar
        .answer_all(Op::Update, Answer::Fail(unavailable()));
    let mut changed = greeter();
    changed.weight = Some(9);
    registrations.register(&me(), changed).await.unwrap();
    registrations
        .set_ready(&me(), &port(50051), false)
        .await
        .unwrap();
    let no = Error::new(ErrorKind::Rejected, "scripted").because("not that");
    backend.registrar.answer_all(Op::Update, Answer::Succeed);
    backend.registrar.answer_next(Op::Update, Answer::Fail(no));
    let entry = until_entry(&registrations, "as before", |entry| {
        entry.declaration.weight.is_none()
    })
    .await;
    assert!(!entry.declaration.ready);
    until_entry(&registrations, "unready", |entry| {
        entry.stage == Stage::Registered && entry.instance.weight() == 1
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_kept_is_found_before_one_that_is_gone() {
    let registrations = Registrations::new(Memory::new().connect());
    let with_id = |id: &str| declared(json!({"service": "greeter", "id": id, "address": ADDRESS}));
    for id in ["g-1", "g-2"] {
        registrations.register(&me(), with_id(id)).await.unwrap();
        let found = registrations.entry(&port(50051)).unwrap();
        assert_eq!(found.record.id.as_str(), id);
        if id == "g-1" {
            registrations.deregister(&me(), &port(50051)).await.unwrap();
            let gone = registrations.entry(&port(50051)).unwrap();
            assert_eq!(gone.stage, Stage::Deregistered);
        }
    }
    assert_eq!(registrations.entry(&port(1)), None);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_process_that_has_ended_already_is_never_another_one_that_gets_its_id() {
    use sd_sidecar::wire::CheckKind;

    let mut ended = std::process::Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let registrations = Registrations::new(Memory::new().connect());
    let checked = declared(json!({
        "service": "greeter", "address": ADDRESS, "checks": [{"kind": "pid", "pid": ended.id()}],
    }));
    let entry = registrations.register(&me(), checked).await.unwrap();
    assert_eq!(
        entry.declaration.checks[0].kind,
        CheckKind::Pid {
            pid: ended.id(),
            started: Some(0)
        }
    );
}

#[tokio::test(start_paused = true)]
async fn what_one_caller_has_registered_no_other_can_change() {
    let registrations = Registrations::new(Memory::new().connect());
    let other = Caller("other".into());
    let entry = registrations
        .register(&me(), of_run("r1", 3))
        .await
        .unwrap();
    let which = the_record(&entry);
    let refused = [
        registrations
            .register(&other, of_run("r1", 3))
            .await
            .map(drop),
        registrations
            .register(&other, of_run("r1", 4))
            .await
            .map(drop),
        registrations.drain(&other, &which, GRACE).await.map(drop),
        registrations.deregister(&other, &which).await.map(drop),
        registrations
            .deregister(&other, &port(50051))
            .await
            .map(drop),
        registrations
            .beat(&other, &which, "ttl", CheckState::Passing, "")
            .map(drop),
    ];
    for refused in refused {
        assert!(matches!(refused, Err(Refused::NotYours(_))), "{refused:?}");
    }
    let mut of_another_app = of_run("r1", 3);
    of_another_app.app.as_mut().unwrap().app_id = "another".to_owned();
    let refused = registrations.register(&me(), of_another_app).await;
    assert!(matches!(refused, Err(Refused::NotYours(why)) if why.contains("\"app\"")));
    assert_eq!(registrations.entries()[0].stage, Stage::Serving);
    registrations.deregister(&me(), &which).await.unwrap();
    // What is gone is not shown to others as theirs either.
    let gone = registrations.deregister(&other, &which).await;
    assert!(matches!(gone, Err(Refused::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn a_failing_check_makes_it_unready_and_never_deregisters_it() {
    let memory = Memory::new();
    let registrations = Registrations::new(memory.connect());
    let mut readers = memory.connect().subscribe("greeter").unwrap();
    let checked = declared(json!({
        "service": "greeter", "address": ADDRESS,
        "checks": [{"name": "beat", "kind": "ttl", "ttl": "5s", "initial": "failing"}],
    }));
    let entry = registrations.register(&me(), checked).await.unwrap();
    assert_eq!(entry.stage, Stage::Registered);
    let which = the_record(&entry);
    let beat = |state| registrations.beat(&me(), &which, "beat", state, "so I am");
    beat(CheckState::Passing).unwrap();
    until(&mut readers, "ready", |state| {
        is_live_with(1)(state) && only(state).is_ready()
    })
    .await;
    until_entry(&registrations, "serving", |entry| {
        entry.stage == Stage::Serving
    })
    .await;
    beat(CheckState::Failing).unwrap();
    until(&mut readers, "unready", |state| !only(state).is_ready()).await;
    sleep(Duration::from_secs(3600)).await;
    let entry = until_entry(&registrations, "unready", |entry| {
        entry.stage == Stage::Registered
    })
    .await;
    assert!(!entry.health.passing);
    assert_eq!(only(&readers.state()).record_id(), entry.record);
    let unknown = registrations.beat(&me(), &which, "other", CheckState::Passing, "");
    assert!(matches!(unknown, Err(Refused::NoCheck(_))));
}

/// In the reference system a registration is lost, or an error is told although it holds, where a later step fails.
#[tokio::test(start_paused = true)]
async fn without_the_registry_register_returns_with_the_reason_and_the_registration_holds() {
    let (backend, registry) = scripted();
    backend
        .registrar
        .answer_all(Op::Register, Answer::Fail(unavailable()));
    let registrations = Registrations::new(registry);
    let begun = Instant::now();
    let entry = registrations.register(&me(), greeter()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(6));
    assert_eq!(entry.stage, Stage::Init);
    assert!(entry.error.unwrap().contains("the registry is down"));
    sleep(Duration::from_secs(3600)).await;
    backend.registrar.answer_all(Op::Register, Answer::Succeed);
    let entry = until_entry(&registrations, "serving", |entry| {
        entry.stage == Stage::Serving
    })
    .await;
    assert_eq!(entry.error, None);
}

/// In the reference system an instance that Consul has lost stays lost.
#[tokio::test(start_paused = true)]
async fn a_record_that_is_lost_comes_back_as_it_was() {
    let memory = Memory::new();
    let registrations = Registrations::new(memory.connect());
    let mut readers = memory.connect().subscribe("greeter").unwrap();
    let entry = registrations.register(&me(), greeter()).await.unwrap();
    until(&mut readers, "there", is_live_with(1)).await;
    assert!(memory.operator().remove(&entry.record));
    until(&mut readers, "gone", is_live_with(0)).await;
    let seen = until(&mut readers, "back", is_live_with(1)).await;
    assert_eq!(only(&seen), entry.instance.as_ref().clone());
}

#[tokio::test(start_paused = true)]
async fn a_change_that_the_registry_has_not_confirmed_says_so_and_the_stage_is_what_readers_see() {
    for (answer, why) in [
        (Answer::Hang, "timed out"),
        (Answer::Fail(unavailable()), "the registry is down"),
    ] {
        let (backend, registry) = scripted();
        let registrations = Registrations::new(registry);
        let first = registrations.register(&me(), greeter()).await.unwrap();
        assert!(first.is_confirmed);
        backend.registrar.answer_all(Op::Update, answer);
        let mut changed = greeter();
        changed.weight = Some(9);
        let changed = registrations.register(&me(), changed).await.unwrap();
        let which = port(50051);
        let unready = registrations.set_ready(&me(), &which, false).await.unwrap();
        let shown = &registrations.entries()[0];
        let drained = registrations
            .drain(&me(), &which, 10 * GRACE)
            .await
            .unwrap();
        for entry in [&changed, &unready[0], shown, &drained[0]] {
            assert!(!entry.is_confirmed, "{entry:?}");
            assert!(entry.error.is_some(), "{entry:?}");
        }
        let told = drained[0].error.as_deref().unwrap_or_default();
        assert!(told.contains(why), "{told}");
        // Readers go on seeing it as ready.
        for entry in [&changed, &unready[0], shown] {
            assert_eq!(entry.stage, Stage::Serving);
        }
        backend.registrar.answer_all(Op::Update, Answer::Succeed);
        let entry = until_entry(&registrations, "confirmed", |entry| entry.is_confirmed).await;
        assert_eq!((entry.stage, entry.error), (Stage::Draining, None));
        assert!(!entry.instance.is_ready());
        // What is gone has nothing to confirm.
        let down = Answer::Fail(unavailable());
        backend.registrar.answer_all(Op::Update, down);
        let changed = registrations.register(&me(), greeter()).await.unwrap();
        assert!(!changed.is_confirmed, "{changed:?}");
        let gone = registrations.deregister(&me(), &which).await.unwrap();
        assert_eq!(
            (gone[0].stage, &gone[0].error),
            (Stage::Deregistered, &None)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_the_registry_refuses_leaves_it_as_it_was() {
    let (backend, registry) = scripted();
    let registrations = Registrations::new(registry);
    let first = registrations.register(&me(), greeter()).await.unwrap();
    let no = Error::new(ErrorKind::Rejected, "scripted").because("not that");
    backend.registrar.answer_next(Op::Update, Answer::Fail(no));
    let mut changed = greeter();
    changed.weight = Some(9);
    let refused = registrations.register(&me(), changed.clone()).await;
    assert!(matches!(&refused, Err(Refused::Registry(_))), "{refused:?}");
    assert!(refused.unwrap_err().to_string().contains("not that"));
    let entry = registrations.register(&me(), greeter()).await.unwrap();
    assert_eq!((entry.record, entry.declaration), (first.record, greeter()));
    assert_eq!(entry.instance.weight(), 1);
    // The next one is another matter.
    let entry = registrations.register(&me(), changed).await.unwrap();
    assert_eq!((entry.instance.weight(), entry.stage), (9, Stage::Serving));
}

#[tokio::test(start_paused = true)]
async fn what_can_never_work_is_refused_and_leaves_nothing() {
    let (backend, registry) = scripted();
    let registrations = Registrations::new(registry);
    for (body, why) in [
        (json!({"service": "greeter"}), "neither address nor port"),
        (
            json!({"service": "greeter", "address": ADDRESS, "port": 1}),
            "exclude each other",
        ),
        (
            json!({"service": "greeter", "port": 50051}),
            "does not know the address",
        ),
        (
            json!({"service": "greeter", "address": "127.0.0.1:1"}),
            "set allow_loopback",
        ),
        (
            json!({"service": "greeter", "address": "localhost:1"}),
            "set allow_loopback",
        ),
        (
            json!({"service": "greeter", "address": "[::1]:1"}),
            "set allow_loopback",
        ),
        (
            json!({"service": "greeter", "address": "unix:/run/greeter.sock"}),
            "set allow_loopback",
        ),
        (
            json!({"service": "greeter", "address": "[::ffff:127.0.0.2]:1"}),
            "set allow_loopback",
        ),
        (
            json!({"service": "greeter", "address": ADDRESS, "ttl": "1ms"}),
            "ttl: 1ms is none that this registry takes: write ",
        ),
        (
            json!({"service": "greeter", "address": "[fe80::1]:1"}),
            "address: [fe80::1]:1 is link-local",
        ),
        (
            json!({"service": "greeter", "address": ADDRESS, "metadata": {"k": "v".repeat(5000)}}),
            "5001 bytes",
        ),
        (
            json!({"service": "greeter", "address": ADDRESS, "app": {"app_id": "a".repeat(256), "app_instance_id": "r"}}),
            "app.app_id: it may have 255 bytes, not 256",
        ),
        (
            json!({"service": "greeter", "address": ADDRESS, "app": {"app_id": "a", "app_instance_id": "r".repeat(1_000_000)}}),
            "app.app_instance_id",
        ),
        (
            json!({"service": "greeter", "address": ADDRESS, "checks": [{"kind": "command", "command": ["true"]}]}),
            "checks[0]: this agent runs no programs",
        ),
    ] {
        let refused = registrations.register(&me(), declared(body)).await;
        let Err(Refused::Invalid(told)) = refused else {
            panic!("not refused for {why}: {refused:?}");
        };
        assert!(told.contains(why), "{told}");
    }
    assert_eq!(registrations.entries(), []);
    assert_eq!(backend.registrar.calls().len(), 0);

    // A change that can never work changes nothing.
    registrations.register(&me(), greeter()).await.unwrap();
    let mut large = greeter();
    large.metadata.insert("k".to_owned(), "v".repeat(5000));
    let refused = registrations.register(&me(), large).await;
    assert!(matches!(refused, Err(Refused::Invalid(_))));
    assert_eq!(registrations.entries()[0].declaration, greeter());
    assert_eq!(backend.registrar.calls_of(Op::Update).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_port_alone_is_at_the_address_that_the_agent_advertises() {
    let (_backend, registry) = scripted();
    let mut settings = Settings::default();
    settings.advertised_host = Some("10.0.0.7".to_owned());
    settings.zone = Some("z1".to_owned());
    let registrations = Registrations::with_settings(registry, settings);
    let by_port = declared(json!({"service": "greeter", "port": 50051}));
    let entry = registrations.register(&me(), by_port).await.unwrap();
    assert_eq!(entry.instance.endpoint().to_string(), ADDRESS);
    assert_eq!(entry.instance.zone(), Some("z1"));
    // The same in other words.
    let again = registrations.register(&me(), greeter()).await.unwrap();
    assert_eq!(again.record, entry.record);
    assert_eq!(registrations.entries().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_could_not_be_withdrawn_is_withdrawn_later() {
    let (backend, registry) = scripted();
    let registrations = Registrations::new(registry);
    registrations.register(&me(), greeter()).await.unwrap();
    backend
        .registrar
        .answer_all(Op::Withdraw, Answer::Fail(unavailable()));
    let gone = registrations.deregister(&me(), &port(50051)).await.unwrap();
    assert_eq!(gone[0].stage, Stage::Deregistered);
    assert!(
        gone[0]
            .error
            .as_ref()
            .unwrap()
            .contains("the registry is down")
    );
    let before = backend.registrar.calls_of(Op::Withdraw).len();
    sleep(Duration::from_secs(600)).await;
    backend.registrar.answer_all(Op::Withdraw, Answer::Succeed);
    let failed = backend.registrar.calls_of(Op::Withdraw).len();
    assert!(failed > before);
    timeout(LONG * 3, backend.registrar.called(Op::Withdraw, failed + 1))
        .await
        .unwrap();
    // And no more after that.
    sleep(Duration::from_secs(600)).await;
    assert_eq!(backend.registrar.calls_of(Op::Withdraw).len(), failed + 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_registered_while_the_one_before_leaves_comes_after_it() {
    let (backend, registry) = scripted();
    let registrations = Registrations::new(registry);
    let with_id = || declared(json!({"service": "greeter", "id": "g", "address": ADDRESS}));
    let first = registrations.register(&me(), with_id()).await.unwrap();
    backend
        .registrar
        .answer_next(Op::Withdraw, Answer::SucceedAfter(Duration::from_secs(1)));
    let leaving = registrations.clone();
    let which = the_record(&first);
    let leaving = tokio::spawn(async move { leaving.deregister(&me(), &which).await.unwrap() });
    timeout(LONG, backend.registrar.called(Op::Withdraw, 1))
        .await
        .unwrap();
    let next = registrations.register(&me(), with_id()).await.unwrap();
    assert_eq!(next.stage, Stage::Serving);
    assert_ne!(next.record.incarnation, first.record.incarnation);
    assert_eq!(leaving.await.unwrap()[0].record, first.record);
    // The past of the same instance is not shown beside it.
    assert_eq!(registrations.entries().len(), 1);
}

/// In the reference system they are kept for ever.
#[tokio::test(start_paused = true)]
async fn what_is_gone_is_shown_for_a_while_and_only_so_many_are() {
    let mut settings = Settings::default();
    settings.most_gone = 3;
    let registrations = Registrations::with_settings(Memory::new().connect(), settings);
    for at in 1..=5 {
        let address = format!("10.0.0.7:{at}");
        let body = json!({"service": "greeter", "address": address});
        registrations.register(&me(), declared(body)).await.unwrap();
        registrations.deregister(&me(), &port(at)).await.unwrap();
    }
    let shown = registrations.entries();
    let shown: Vec<u16> = shown
        .iter()
        .filter_map(|entry| entry.instance.endpoint().port())
        .collect();
    assert_eq!(shown, [3, 4, 5]);
    sleep(Duration::from_secs(601)).await;
    assert_eq!(registrations.entries(), []);
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_registrations_than_allowed() {
    let mut settings = Settings::default();
    settings.most_registrations = 2;
    let registrations = Registrations::with_settings(Memory::new().connect(), settings);
    let at = |at: u16| declared(json!({"service": "greeter", "address": format!("h:{at}")}));
    for one in [1, 2] {
        registrations.register(&me(), at(one)).await.unwrap();
    }
    let refused = registrations.register(&me(), at(3)).await;
    assert!(matches!(refused, Err(Refused::TooMany(_))));
    // Those that are there can change.
    registrations.register(&me(), at(2)).await.unwrap();
    registrations.deregister(&me(), &port(1)).await.unwrap();
    registrations.register(&me(), at(3)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_caller_leaves_registrations_to_others_and_what_it_deregisters_makes_room() {
    let mut settings = Settings::default();
    settings.most_registrations = 80;
    let registrations = Registrations::with_settings(Memory::new().connect(), settings);
    let at = |at: u16| declared(json!({"service": "greeter", "address": format!("h:{at}")}));
    for one in 1..=40 {
        registrations.register(&me(), at(one)).await.unwrap();
    }
    let refused = registrations.register(&me(), at(41)).await;
    let Err(Refused::TooMany(told)) = refused else {
        panic!("{refused:?}");
    };
    assert!(told.starts_with("40 registrations"), "{told}");
    // What it has it may change.
    let mut changed = at(1);
    changed.weight = Some(7);
    registrations.register(&me(), changed).await.unwrap();
    let other = Caller("other".into());
    for one in 41..=60 {
        registrations.register(&other, at(one)).await.unwrap();
    }
    let refused = registrations.register(&other, at(61)).await;
    assert!(matches!(refused, Err(Refused::TooMany(_))), "{refused:?}");
    registrations.deregister(&other, &port(60)).await.unwrap();
    registrations.register(&other, at(61)).await.unwrap();
    // Of the limit, the rest is for those who have few.
    let third = Caller("third".into());
    registrations.register(&third, at(62)).await.unwrap();
}

/// The reference system's agent leaves everything behind if a client is connected when it stops.
#[tokio::test(start_paused = true)]
async fn an_agent_that_ends_deregisters_everything() {
    let memory = Memory::new();
    let registrations = Registrations::new(memory.connect());
    let mut readers = memory.connect().subscribe("greeter").unwrap();
    for at in 1..=20 {
        let body = json!({"service": "greeter", "address": format!("10.0.0.7:{at}")});
        registrations.register(&me(), declared(body)).await.unwrap();
    }
    until(&mut readers, "registered", is_live_with(20)).await;
    let left = registrations.close(How::Deregister, GRACE).await;
    assert!(left.is_empty(), "{left:?}");
    until(&mut readers, "gone", is_live_with(0)).await;
    for refused in [
        registrations.register(&me(), greeter()).await.map(drop),
        registrations.deregister(&me(), &port(1)).await.map(drop),
    ] {
        assert!(matches!(refused, Err(Refused::Stopping)), "{refused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_ends_keeps_its_time_and_tells_what_it_left() {
    let (backend, registry) = scripted();
    let registrations = Registrations::new(registry);
    let entry = registrations.register(&me(), greeter()).await.unwrap();
    backend.registrar.answer_all(Op::Withdraw, Answer::Hang);
    let begun = Instant::now();
    let limit = Duration::from_secs(1);
    let left = registrations.close(How::Deregister, limit).await;
    assert!(begun.elapsed() <= limit + Duration::from_millis(100));
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].record, entry.record);
}

#[tokio::test(start_paused = true)]
async fn an_operators_word_is_shown_and_counts() {
    let memory = Memory::new();
    let registrations = Registrations::new(memory.connect());
    let entry = registrations.register(&me(), greeter()).await.unwrap();
    let operator = memory.connect();
    operator
        .set_override(&entry.record, sd_core::Override::Unready)
        .await
        .unwrap();
    let entry = until_entry(&registrations, "overridden", |entry| {
        entry.overridden.is_some()
    })
    .await;
    assert_eq!(entry.stage, Stage::Registered);
    operator.clear_override(&entry.record).await.unwrap();
    until_entry(&registrations, "cleared", |entry| {
        entry.stage == Stage::Serving
    })
    .await;
}
