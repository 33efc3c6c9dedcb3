//! How long callers wait while the registry does not answer, and what becomes of what they were answered for.

use std::sync::Arc;
use std::time::Duration;

use sd_core::clock::TokioClock;
use sd_core::{ErrorKind, Registry, RegistryConfig};
use sd_sidecar::daemon::api::ApiConfig;
use sd_sidecar::daemon::registrations::{Entry, How, Refused, Registrations, Settings, Stage};
use sd_testing::{Answer, LONG, Op, ScriptedBackend, eventually};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::common::bodies::flat;
use crate::common::{TestAgent, TestConfig};
use crate::registrations::{declared, me, port, unavailable, until_entry};

/// A registry whose withdrawals may take longer than callers wait.
fn patient(withdraw_within: Duration) -> (ScriptedBackend, Registry) {
    let backend = ScriptedBackend::default();
    let mut config = RegistryConfig::default().with_clock(Arc::new(TokioClock));
    config.registration.withdraw_within = withdraw_within;
    let registry = Registry::with_config(Arc::new(backend.clone()), config);
    (backend, registry)
}

#[tokio::test(start_paused = true)]
async fn a_withdrawal_is_answered_in_time_and_what_is_registered_after_it_holds() {
    let (backend, registry) = patient(Duration::from_secs(8));
    let registrations = Registrations::new(registry);
    let greeter =
        || declared(json!({"service": "greeter", "id": "g-1", "address": "10.0.0.7:50051"}));
    let first = registrations.register(&me(), greeter()).await.unwrap();
    backend.registrar.answer_all(Op::Withdraw, Answer::Hang);
    let limit = Settings::default().confirm_within;
    let begin = Instant::now();
    let leaving = registrations.clone();
    let leaving = tokio::spawn(async move { leaving.deregister(&me(), &port(50051)).await });
    let called = backend.registrar.called(Op::Withdraw, 1);
    timeout(LONG, called).await.unwrap();

    // Its place is not free yet.
    let hasty = registrations.confirming_within(Duration::from_secs(1));
    let refused = hasty.register(&me(), greeter()).await;
    let Err(Refused::Registry(late)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(late.kind(), ErrorKind::Timeout);
    let again = hasty.deregister(&me(), &port(50051)).await.unwrap();
    assert!(
        begin.elapsed() <= Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );

    let gone = leaving.await.unwrap().unwrap();
    assert!(begin.elapsed() <= limit, "{:?}", begin.elapsed());
    for entry in again.iter().chain(&gone) {
        assert_eq!(
            (entry.stage, &entry.record),
            (Stage::Deregistered, &first.record)
        );
        let why = entry.error.as_deref().unwrap_or_default();
        assert!(why.contains("that it is withdrawn"), "{why}");
    }
    let next = registrations.register(&me(), greeter()).await.unwrap();
    assert_ne!(next.record, first.record);
    let serving = |entry: &Entry| entry.stage == Stage::Serving;
    let entry = until_entry(&registrations, "serving", serving).await;
    assert_eq!(entry.record, next.record);
}

#[tokio::test(start_paused = true)]
async fn a_withdrawal_that_goes_on_after_its_answer_is_told_at_the_end_unless_it_has_succeeded() {
    // The answer comes once the first attempts have failed, and among them.
    for withdraw_within in [3, 8].map(Duration::from_secs) {
        for how in [How::Deregister, How::Keep] {
            for (at_the_end, is_left) in [
                (Answer::Hang, true),
                (Answer::Fail(unavailable()), true),
                (Answer::Succeed, false),
            ] {
                let (backend, registry) = patient(withdraw_within);
                let registrations = Registrations::new(registry);
                let greeter = declared(json!({"service": "greeter", "address": "10.0.0.7:50051"}));
                let entry = registrations.register(&me(), greeter).await.unwrap();
                let withdrawals = &backend.registrar;
                withdrawals.answer_all(Op::Withdraw, Answer::Fail(unavailable()));
                let gone = registrations.deregister(&me(), &port(50051)).await;
                assert_eq!(gone.unwrap()[0].stage, Stage::Deregistered);
                withdrawals.answer_all(Op::Withdraw, at_the_end.clone());
                let left = registrations.close(how, Duration::from_secs(20)).await;
                let left: Vec<_> = left.into_iter().map(|one| one.record).collect();
                let expected: Vec<_> = is_left.then_some(entry.record).into_iter().collect();
                assert_eq!(left, expected, "{withdraw_within:?} {how:?} {at_the_end:?}");
            }
        }
    }
}

/// They give up after 3 s, and ask again.
#[tokio::test]
async fn clients_of_the_reference_system_are_answered_before_they_give_up() {
    assert!(ApiConfig::default().legacy_within < Duration::from_secs(3));
    let (backend, registry) = patient(10 * LONG);
    let mut config = TestConfig::with_api(|api| api.legacy_within = Duration::from_millis(200));
    config.confirm_within = 10 * LONG;
    let agent = TestAgent::start_at(registry, config).await;
    let client = agent.client();
    backend.registrar.answer_all(Op::Register, Answer::Hang);
    let which = json!({"name": "auth", "port": 9090});
    let registered = client.post("/register", &flat("auth", 9090)).await;
    assert_eq!(registered.expect(200)["state"], "Init");
    client.post("/deregister", &which).await.expect(200);

    backend.registrar.answer_all(Op::Register, Answer::Succeed);
    let serves = async || {
        let registered = client.post("/register", &flat("auth", 9090)).await;
        registered.expect(200)["state"] == "Serving"
    };
    eventually("serving", LONG, serves).await;
    backend.registrar.answer_all(Op::Update, Answer::Hang);
    backend.registrar.answer_all(Op::Withdraw, Answer::Hang);
    let drained = client.post("/drain", &which).await;
    assert_eq!(drained.expect(200)["state"], "Draining");
    let gone = client.post("/deregister", &which).await;
    assert_eq!(gone.expect(200)["state"], "Deregistered");
}

/// As the documentation of the API says.
#[tokio::test]
async fn what_registers_where_another_one_is_being_withdrawn_is_told_in_time_that_it_is_not() {
    let (backend, registry) = patient(10 * LONG);
    let mut config = TestConfig::with_api(|api| api.legacy_within = Duration::from_millis(200));
    config.confirm_within = 10 * LONG;
    let agent = TestAgent::start_at(registry, config).await;
    let client = agent.client();
    let registered = client.post("/register", &flat("auth", 9090)).await;
    registered.expect(200);
    let held = client.get("/v1/registrations").await.expect(200);
    let id = held["registrations"][0]["id"].as_str().unwrap();
    backend.registrar.answer_all(Op::Withdraw, Answer::Hang);
    let deleting = agent.client();
    let path = format!("/v1/registrations/auth/{id}");
    let deleting = tokio::spawn(async move { deleting.delete(&path).await });
    let called = backend.registrar.called(Op::Withdraw, 1);
    timeout(LONG, called).await.unwrap();
    let refused = client.post("/register", &flat("auth", 9090)).await;
    assert_eq!(refused.expect(504)["code"], "register_failed");
    deleting.abort();
}
