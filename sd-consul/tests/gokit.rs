//! Side by side with go-kit's consul package: it sees what we register and no longer than it should, and we what it registers.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;

use common::operator::service_id;
use common::{
    LONG, Operator, TTL, config_at, instance, is_live_with, registry_at, server, service, until,
};
use sd_consul::ConsulBackend;
use sd_core::port::Attempt;
use sd_core::{Backend, ErrorKind, Override, ServiceName};
use sd_testing::Peer;
use serde_json::Value;
use tokio::time::timeout;

/// go-kit doing this, at the agent that all share.
fn go_kit(action: &str, service: &ServiceName, rest: &[&str]) -> Peer {
    let (server, service) = (server(), service.as_str());
    let arguments = [&["consul", action, &server, service], rest].concat();
    Peer::start("SD_TEST_CONSUL_GO_KIT", &arguments).unwrap()
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

/// The next set that an Instancer of go-kit has.
async fn next(instancer: &mut Peer) -> Vec<String> {
    let line = timeout(LONG, instancer.line()).await.unwrap().unwrap();
    let seen = json(&line)["instances"].take();
    serde_json::from_value(seen).unwrap_or_else(|_| panic!("{line}"))
}

/// What a Registrar of go-kit has done, which also logs why it could not.
async fn done(registrar: &mut Peer) -> Value {
    let line = timeout(LONG, registrar.line()).await.unwrap().unwrap();
    json(&line)["action"].take()
}

async fn deregister(registrar: Peer) {
    let left = timeout(LONG, registrar.dismiss()).await.unwrap().unwrap();
    let [line] = &left[..] else {
        panic!("{left:?}");
    };
    assert_eq!(json(line)["action"], "deregister", "{line}");
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn go_kit_sees_what_we_register_while_it_is_ready() {
    let (service, registry) = (service(), registry_at(&server()));
    let mut all = go_kit("watch", &service, &[]);
    // The first is looked for by Consul, the others by go-kit.
    let mut tagged = go_kit("watch", &service, &["blue", "v2"]);
    let mut other = go_kit("watch", &service, &["blue", "v3"]);
    for instancer in [&mut all, &mut tagged, &mut other] {
        assert!(next(instancer).await.is_empty());
    }
    let ours = instance(&service, 8080).with_tag("v2").with_tag("blue");
    let ours = ours.with_weight(7).with_zone("a").with_metadata("k", "v");
    let guard = registry.register(ours).await.unwrap();
    for instancer in [&mut all, &mut tagged] {
        assert_eq!(next(instancer).await, ["10.0.0.1:8080"]);
    }
    for ready in [false, true] {
        let update = guard.update(move |instance| instance.with_ready(ready));
        update.await.unwrap();
        let expected: &[&str] = if ready { &["10.0.0.1:8080"] } else { &[] };
        for instancer in [&mut all, &mut tagged] {
            assert_eq!(next(instancer).await, expected);
        }
    }
    guard.deregister().await.unwrap();
    for mut instancer in [all, tagged] {
        assert!(next(&mut instancer).await.is_empty());
    }
    let left = timeout(LONG, other.dismiss()).await.unwrap().unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn what_crashed_vanishes_from_go_kit() {
    let (service, registry) = (service(), registry_at(&server()));
    let _alive = registry.register(instance(&service, 1)).await.unwrap();
    let backend = Arc::new(ConsulBackend::new(config_at(&server())).unwrap());
    let (registrar, crashed) = (backend.registrar().unwrap(), instance(&service, 2));
    registrar
        .register(&crashed, &Attempt::new(LONG))
        .await
        .unwrap();
    let mut instancer = go_kit("watch", &service, &[]);
    let mut seen = next(&mut instancer).await;
    seen.sort();
    assert_eq!(seen, ["10.0.0.1:1", "10.0.0.1:2"]);
    // As its time-to-live does, since it is not renewed.
    Operator::at(&server()).fail(&crashed.record_id()).await;
    assert_eq!(next(&mut instancer).await, ["10.0.0.1:1"]);
    registrar.withdraw(&crashed.record_id()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn what_go_kit_registers_is_read_beside_our_own() {
    let (service, registry) = (service(), registry_at(&server()));
    let operator = Operator::at(&server());
    let ours = registry.register(instance(&service, 1)).await.unwrap();
    let mut seen = registry.subscribe(&service).unwrap();
    until(&mut seen, "ours", is_live_with(1)).await;
    let ids = ["with-address", "without"].map(|id| format!("{id}-of-{service}"));
    let [with, without] = &ids;
    let tagged = [with, "10.0.0.3", "12345", "alpha", "beta"];
    let mut tagged = go_kit("register", &service, &tagged);
    // Then it is at the node's.
    let mut plain = go_kit("register", &service, &[without, "", "12346"]);
    for registrar in [&mut tagged, &mut plain] {
        assert_eq!(done(registrar).await, "register");
    }
    let state = until(&mut seen, "all", is_live_with(3)).await;
    let read = |id: &str| {
        let mut all = state.snapshot().instances().iter();
        let found = all.find(|one| one.id().as_str().starts_with(id)).unwrap();
        let tags: Vec<String> = found.tags().iter().cloned().collect();
        (found.endpoint().to_string(), tags, found.is_ready())
    };
    let tags = ["alpha", "beta"].map(str::to_owned).to_vec();
    assert_eq!(read(with), ("10.0.0.3:12345".to_owned(), tags, true));
    let node = operator.entries(&service).await[0]["Node"]["Address"].clone();
    let at_node = format!("{}:12346", node.as_str().unwrap());
    assert_eq!(read(without), (at_node, Vec::new(), true));

    for registrar in [tagged, plain] {
        deregister(registrar).await;
    }
    let state = until(&mut seen, "ours alone", is_live_with(1)).await;
    // They were removed on purpose, by any program.
    assert_eq!(state.snapshot().held(), []);
    assert!(state.snapshot().get(&ours.record_id().id).is_some());
}

/// Consul keeps the check of the service before, so that the one that nothing passes any more is on go-kit's service.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_service_of_go_kit_under_the_id_of_a_living_record_stays_its_own() {
    let (service, operator) = (service(), Operator::at(&server()));
    let backend = Arc::new(ConsulBackend::new(config_at(&server())).unwrap());
    let (registrar, ours) = (backend.registrar().unwrap(), instance(&service, 1));
    let attempt = Attempt::new(TTL);
    let held = registrar.register(&ours, &attempt).await.unwrap();
    let id = service_id(&ours.record_id());
    let mut theirs = go_kit("register", &service, &[&id, "10.0.0.3", "12345"]);
    assert_eq!(done(&mut theirs).await, "register");
    let is_theirs = |entries: &[Value]| {
        let found = entries.iter().map(|entry| &entry["Service"]["Address"]);
        found.eq(["10.0.0.3"])
    };
    operator.until(&service, is_theirs).await;
    let lost = held.renew().await.unwrap_err();
    operator.fail(&ours.record_id()).await;

    let again = attempt.with_was_confirmed();
    let refused = registrar.register(&ours, &again).await.unwrap_err();
    let next = instance(&service, 1).with_id(ours.id().clone());
    let next_run = registrar.register(&next, &attempt).await.unwrap_err();
    for error in [lost, refused, next_run] {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
        assert_eq!(error.holder(), None);
    }
    registrar.withdraw(&ours.record_id()).await.unwrap();
    assert!(is_theirs(&operator.entries(&service).await));
    deregister(theirs).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_service_of_go_kit_in_the_maintenance_mode_of_a_record_is_unready() {
    let (service, registry) = (service(), registry_at(&server()));
    let guard = registry.register(instance(&service, 1)).ttl(LONG).await;
    let guard = guard.unwrap();
    let drained = registry.set_override(guard.record_id(), Override::Draining);
    drained.await.unwrap();
    let id = service_id(guard.record_id());
    let mut seen = registry.subscribe(&service).unwrap();
    let mut theirs = go_kit("register", &service, &[&id, "10.0.0.3", "12345"]);
    assert_eq!(done(&mut theirs).await, "register");
    let state = until(&mut seen, "theirs", |state| {
        let mut all = state.snapshot().instances().iter();
        all.any(|one| one.endpoint().port() == Some(12345))
    });
    let state = state.await;
    let theirs_seen = &state.snapshot().instances()[0];
    assert!(!theirs_seen.is_ready(), "{theirs_seen:?}");
    // As Consul's other clients see it.
    let operator = Operator::at(&server());
    assert!(operator.passing(&service).await.is_empty());
    deregister(theirs).await;
    guard.deregister().await.unwrap();
}

/// Names go into Consul's catalog as they are.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn go_kit_and_we_see_each_others_odd_names() {
    let (own, registry) = (service(), registry_at(&server()));
    for name in [
        format!("users/v1/{own}"),
        format!("größe.{own}"),
        format!("_Udp_.{own}"),
        format!("two words {own}"),
        format!("100% {own}"),
        format!("a%2Fb:{own}/"),
    ] {
        let service = ServiceName::new(&name).unwrap();
        let mut instancer = go_kit("watch", &service, &[]);
        assert!(next(&mut instancer).await.is_empty());
        let mut seen = registry.subscribe(&service).unwrap();
        let mut theirs = go_kit("register", &service, &[&name, "10.0.0.3", "12345"]);
        assert_eq!(done(&mut theirs).await, "register");
        assert_eq!(next(&mut instancer).await, ["10.0.0.3:12345"], "{name}");
        let state = until(&mut seen, "theirs", is_live_with(1)).await;
        let id = state.snapshot().instances()[0].id().clone();
        assert!(id.as_str().starts_with(&format!("{name}@")), "{id}");
        let ours = registry.register(instance(&service, 8080)).await.unwrap();
        let both = ["10.0.0.1:8080", "10.0.0.3:12345"];
        assert_eq!(next(&mut instancer).await, both, "{name}");
        until(&mut seen, "both", is_live_with(2)).await;
        assert!(registry.services().await.unwrap().contains(&service));
        ours.deregister().await.unwrap();
        deregister(theirs).await;
        until(&mut seen, "gone", is_live_with(0)).await;
    }
}
