//! What operators and other programs do to our records, over a running Consul.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::operator::service_id;
use common::{
    BACK_WITHIN, LONG, Operator, TTL, config_at, event, eventually, instance, own_server,
    own_server_with, registry_at, server, service, until,
};
use futures_util::FutureExt;
use sd_consul::{ConsulBackend, ConsulConfig};
use sd_core::port::Attempt;
use sd_core::{
    Backend, ErrorKind, Incarnation, Instance, InstanceId, Override, Registrar, RegistrationEvent,
    RegistrationGuard,
};
use sd_testing::{HttpProxy, HttpRule};
use server_programs::LocalServer;
use tokio::time::Instant;

fn registrar(config: ConsulConfig) -> Arc<dyn Registrar> {
    let backend = Arc::new(ConsulBackend::new(config).unwrap());
    backend.registrar().unwrap()
}

/// A registration that notices a loss and is soon there again.
async fn comes_back(guard: &mut RegistrationGuard, operator: &Operator, since: Instant) {
    event(guard, "lost").await;
    event(guard, "registered").await;
    assert!(since.elapsed() < BACK_WITHIN, "{:?}", since.elapsed());
    assert_eq!(operator.passing(&guard.record_id().service).await.len(), 1);
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn whatever_an_operator_removes_is_there_again() {
    let (service, operator) = (service(), Operator::at(&server()));
    let registry = registry_at(&server());
    let one = instance(&service, 1);
    let mut guard = registry.register(one).ttl(TTL).await.unwrap();
    event(&mut guard, "registered").await;
    let id = service_id(guard.record_id());
    for target in [
        format!("/v1/agent/service/deregister/{id}"),
        format!("/v1/agent/check/deregister/service:{id}"),
        format!("/v1/agent/check/fail/service:{id}"),
    ] {
        let since = Instant::now();
        operator.put(&target, "").await;
        comes_back(&mut guard, &operator, since).await;
    }
    guard.deregister().await.unwrap();
    assert!(operator.entries(&service).await.is_empty());
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_successors_record_is_never_touched() {
    let (service, operator) = (service(), Operator::at(&server()));
    let registrar = registrar(config_at(&server()));
    let ours = instance(&service, 1);
    let held = registrar.register(&ours, &Attempt::new(TTL)).await.unwrap();
    // As after a pause in which our check ended and another took the id.
    let body = serde_json::json!({
        "Name": service.as_str(), "ID": service_id(&ours.record_id()), "Address": "10.0.0.9", "Port": 9,
        "Meta": {"sd-incarnation": "2a"}, "Check": {"TTL": "300s", "Status": "passing"},
    });
    operator
        .put("/v1/agent/service/register", &body.to_string())
        .await;
    operator
        .until(&service, |entries| {
            entries[0]["Service"]["Address"] == "10.0.0.9"
        })
        .await;
    let before = operator.entries(&service).await;

    let lost = [
        held.renew().await.unwrap_err(),
        held.update(&ours.clone().with_weight(7)).await.unwrap_err(),
        registrar
            .register(&ours, &Attempt::new(TTL))
            .await
            .unwrap_err(),
    ];
    for error in lost {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
    }
    registrar.withdraw(&ours.record_id()).await.unwrap();
    assert_eq!(operator.entries(&service).await, before);
    operator
        .remove(&service, &service_id(&ours.record_id()))
        .await;
}

/// Removes a record from the catalog alone, as scripts do that clean up, and waits until it is back. The agent does not know, and
/// compares its records with the catalog's once a minute at most: returns when its owner was the first to notice.
async fn is_missed(guard: &mut RegistrationGuard, operator: &Operator, node: &str) {
    let service = guard.record_id().service.clone();
    let id = service_id(guard.record_id());
    let removed = serde_json::json!({"Node": node, "ServiceID": id}).to_string();
    for _ in 0..3 {
        operator.put("/v1/catalog/deregister", &removed).await;
        let is_there = |entry: &serde_json::Value| entry["Service"]["ID"] == id.as_str();
        operator
            .until(&service, |entries| entries.iter().any(is_there))
            .await;
        while let Some(Some(event)) = guard.next_event().now_or_never() {
            if let RegistrationEvent::Lost(error) = event {
                let why = error.report().to_string();
                assert!(why.contains("the catalog does not"), "{why}");
                return;
            }
        }
    }
    panic!("the owner of {id} has not missed it");
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn what_was_removed_from_the_catalog_alone_is_soon_there_again_as_it_was() {
    let server = own_server().await;
    let (url, node) = (server.program().url(), server.program().node());
    let (service, operator, registry) = (service(), Operator::at(&url), registry_at(&url));
    let mut plain = registry.register(instance(&service, 1)).await.unwrap();
    let unready = instance(&service, 2).with_ready(false);
    let mut unready = registry.register(unready).await.unwrap();
    let mut drained = registry.register(instance(&service, 3)).await.unwrap();
    let drain = registry.set_override(drained.record_id(), Override::Draining);
    drain.await.unwrap();
    let mut seen = registry.subscribe(&service).unwrap();
    let before = until(&mut seen, "all", |state| state.snapshot().len() == 3).await;
    let before = before.snapshot().clone();
    // None is ready, or without its override, for a moment.
    let watching = async {
        loop {
            let state = seen.changed().await.unwrap();
            for one in state.snapshot().instances() {
                assert_eq!(before.get(one.id()), Some(one));
            }
        }
    };
    let missing = async {
        tokio::join!(
            is_missed(&mut plain, &operator, node),
            is_missed(&mut unready, &operator, node),
            is_missed(&mut drained, &operator, node),
        )
    };
    tokio::select! {
        () = watching => {}
        _ = missing => {}
    }
    until(&mut seen, "all again", |state| state.snapshot().len() == 3).await;
    event(&mut drained, "overridden").await;
    assert_eq!(drained.overridden(), Some(Override::Draining));
}

/// Ids are one space for each agent, so the second one overwrites nothing; and readers see the one that was there first.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_id_that_lives_at_another_agent_is_a_conflict() {
    let server = own_server().await;
    let program = server.program().clone();
    let agent = own_server_with(|mine| mine.client_of(&program)).await;
    let service = service();
    let operator = Operator::at(&program.url());
    let here = registrar(config_at(&program.url()));
    let there = registrar(config_at(&agent.program().url()));
    let first = instance(&service, 1);
    here.register(&first, &Attempt::new(TTL)).await.unwrap();
    let listing = format!("/v1/health/service/{service}");
    let before = operator.index(&listing).await;
    let second = first.clone().with_incarnation(Incarnation::random());
    let refused = there
        .register(&second, &Attempt::new(TTL))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{}", refused.report());
    let report = refused.report().to_string();
    assert!(report.contains(program.node()), "{report}");
    // Not even for a moment.
    assert_eq!(operator.index(&listing).await, before);
    // What has ended is in no one's way, though it is still listed.
    operator.fail(&first.record_id()).await;
    there.register(&second, &Attempt::new(TTL)).await.unwrap();
    let found = registry_at(&program.url()).list(&service).await.unwrap();
    assert_eq!(found.instances()[0].incarnation(), second.incarnation());
}

/// The record moves when the process speaks to another agent, and is one for those who read it.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_registration_that_moves_to_another_agent_is_one_instance() {
    let server = own_server().await;
    let program = server.program().clone();
    let agent = own_server_with(|mine| mine.client_of(&program)).await;
    let service = service();
    let one = instance(&service, 1);
    let old = registrar(config_at(&program.url()));
    old.register(&one, &Attempt::new(TTL)).await.unwrap();
    let new = registrar(config_at(&agent.program().url()));
    let moved = one.clone().with_weight(7);
    new.register(&moved, &Attempt::new(TTL * 10)).await.unwrap();
    let registry = registry_at(&program.url());
    let found = registry.list(&service).await.unwrap();
    assert_eq!(
        (found.instances()[0].weight(), found.skipped()),
        (7, &[][..])
    );
    assert_eq!(
        Operator::at(&program.url()).entries(&service).await.len(),
        2
    );
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn what_is_left_of_a_run_that_crashed_is_taken_over_clean() {
    let (service, operator) = (service(), Operator::at(&server()));
    let registrar = registrar(config_at(&server()));
    let crashed = instance(&service, 1).with_ready(false).with_tag("old");
    registrar
        .register(&crashed, &Attempt::new(TTL))
        .await
        .unwrap();
    operator.fail(&crashed.record_id()).await;
    let next = instance(&service, 2).with_id(crashed.id().clone());
    registrar.register(&next, &Attempt::new(TTL)).await.unwrap();
    let entries = operator.passing(&service).await;
    assert_eq!(entries[0]["Service"]["Tags"], serde_json::json!([]));
    registrar.withdraw(&next.record_id()).await.unwrap();
}

/// The agent has replaced what was left, and the catalog shows it a moment longer, as it was when it lived.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_catalog_that_does_not_show_our_record_yet_proves_no_conflict() {
    let (service, operator) = (service(), Operator::at(&server()));
    let crashed = instance(&service, 1);
    let options = Attempt::new(TTL);
    let old = registrar(config_at(&server()));
    old.register(&crashed, &options).await.unwrap();
    let listing = format!("/v1/health/service/{service}");
    let alive = operator.get(&listing).await.to_string();
    operator.fail(&crashed.record_id()).await;

    let target = server().strip_prefix("http://").unwrap().parse().unwrap();
    let proxy = HttpProxy::start(target).await.unwrap();
    let late = HttpRule::new("GET", &listing).answer(200, alive);
    // Before it is written and after it.
    proxy.set_rules([late.times(2)]);
    let new = registrar(config_at(&proxy.url()));
    let next = crashed.with_incarnation(Incarnation::random());
    new.register(&next, &options).await.unwrap();
    let requests = proxy.requests();
    let looks = requests.iter().filter(|request| request.path == listing);
    assert!(looks.count() > 2, "{requests:?}");
    let found = registry_at(&server()).list(&service).await.unwrap();
    assert_eq!(found.instances()[0].incarnation(), next.incarnation());
    new.withdraw(&next.record_id()).await.unwrap();
}

/// The next attempt may say more.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_look_at_other_ids_that_fails_costs_no_record_of_ours() {
    let service = service();
    let record = instance(&service, 1);
    let options = Attempt::new(TTL);
    let own = registrar(config_at(&server()));
    own.register(&record, &options).await.unwrap();
    let target = server().strip_prefix("http://").unwrap().parse().unwrap();
    let proxy = HttpProxy::start(target).await.unwrap();
    proxy.set_rules([HttpRule::new("GET", "/v1/agent/services").answer(500, "no leader")]);
    let again = registrar(config_at(&proxy.url()));
    let refused = again.register(&record, &options).await.map(drop);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
    let found = registry_at(&server()).list(&service).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    own.withdraw(&record.record_id()).await.unwrap();
}

/// How often a registry asks who holds the id, until the instance is registered.
async fn look_ups(instance: Instance) -> usize {
    let target = server().strip_prefix("http://").unwrap().parse().unwrap();
    let proxy = HttpProxy::start(target).await.unwrap();
    let guard = registry_at(&proxy.url()).register(instance).await.unwrap();
    let requests = proxy.requests();
    guard.deregister().await.unwrap();
    let look_up = "/v1/agent/health/service/id/";
    let look_ups = requests.iter().filter(|r| r.path.starts_with(look_up));
    look_ups.count()
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn who_holds_an_id_is_asked_only_if_another_owner_could() {
    let random = instance(&service(), 1);
    let chosen = random.clone().with_id(InstanceId::new("a").unwrap());
    assert_eq!(look_ups(random).await, 0);
    assert_eq!(look_ups(chosen).await, 1);
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn what_an_earlier_registration_left_under_a_new_id_is_mended_by_the_second_attempt() {
    let (service, operator) = (service(), Operator::at(&server()));
    let config = config_at(&server()).with_request_timeout(Duration::from_secs(1));
    let (registrar, ready) = (registrar(config), instance(&service, 1));
    let left = ready.clone().with_ready(false);
    registrar.register(&left, &Attempt::new(TTL)).await.unwrap();
    let new = Attempt::new(TTL).with_id_is_new();
    let first = registrar.register(&ready, &new).await.unwrap_err();
    assert_eq!(first.kind(), ErrorKind::Timeout, "{}", first.report());
    registrar
        .register(&ready, &Attempt::new(TTL))
        .await
        .unwrap();
    assert_eq!(operator.passing(&service).await.len(), 1);
    registrar.withdraw(&ready.record_id()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn what_consul_would_refuse_is_refused_before_it_is_sent() {
    let service = service();
    let registrar = registrar(config_at(&server()));
    let long = instance(&service, 1).with_metadata("k", "v".repeat(513));
    let refused = registrar.record_bytes(&long).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(
        refused.report().to_string().contains("512"),
        "{}",
        refused.report()
    );
    // And one with the most metadata that we send is taken.
    let mut full = instance(&service, 1)
        .with_zone("z".repeat(512))
        .with_version("v".repeat(512));
    for number in 0..61 {
        let key = format!("{number:0>128}");
        full = full.with_metadata(key, "v".repeat(512));
    }
    registrar.register(&full, &Attempt::new(TTL)).await.unwrap();
    let found = registry_at(&server()).list(&service).await.unwrap();
    assert_eq!(*found.instances()[0], full);
    registrar.withdraw(&full.record_id()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn consul_removes_by_itself_what_is_not_renewed() {
    // Consul takes a minute at least, and looks every 30 s.
    let limit = Duration::from_secs(3 * 60);
    let (service, operator) = (service(), Operator::at(&server()));
    let registrar = registrar(config_at(&server()));
    let one = instance(&service, 1);
    registrar
        .register(&one, &Attempt::new(Duration::from_secs(1)))
        .await
        .unwrap();
    let took = eventually("removed", limit, async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        operator.entries(&service).await.is_empty()
    })
    .await;
    assert!(took > Duration::from_secs(60), "{took:?}");
}

/// To the catalog they are the same: each would replace the other, or be listed with it.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn names_and_ids_that_differ_only_in_case_are_a_conflict_that_says_so() {
    let (service, operator) = (service(), Operator::at(&server()));
    let registry = registry_at(&server());
    let of = |service: &str, id: &str| {
        let id = InstanceId::new(id).unwrap();
        Instance::new(service, "10.0.0.1:1").unwrap().with_id(id)
    };
    let lower = registry
        .register(of(service.as_str(), "a.b"))
        .await
        .unwrap();
    let upper = service.as_str().to_uppercase();
    for refused in [
        of(service.as_str(), "A.b"),
        of(&upper, "a.b"),
        of(&upper, "c"),
    ] {
        let error = registry.register(refused).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let report = error.report().to_string();
        assert!(report.contains("ignores case"), "{report}");
    }
    // A dot is no pattern, and this is another id.
    let other = registry
        .register(of(service.as_str(), "axb"))
        .await
        .unwrap();
    let listed = registry.list(&service).await.unwrap();
    assert_eq!((listed.len(), listed.skipped().len()), (2, 0), "{listed:?}");
    // Consul lists them under that name, too.
    let listed = registry.list(&upper).await.unwrap();
    assert_eq!((listed.len(), listed.skipped().len()), (0, 2), "{listed:?}");
    let reason = &listed.skipped()[0].reason;
    assert!(reason.contains("ignores case"), "{reason}");
    for guard in [lower, other] {
        guard.deregister().await.unwrap();
    }
    assert!(operator.entries(&service).await.is_empty());
    // Now the name is free, and capitals are letters like others.
    let capitals = registry.register(of(&upper, "A.B")).await.unwrap();
    assert_eq!(registry.list(&upper).await.unwrap().len(), 1);
    capitals.deregister().await.unwrap();
}

/// To the catalog both are one, so that it lists only the one that was written last.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn of_two_ids_that_differ_only_in_case_and_came_at_once_one_is_left() {
    let (service, operator) = (service(), Operator::at(&server()));
    let registrar = registrar(config_at(&server()));
    let of = |id: &str| instance(&service, 1).with_id(InstanceId::new(id).unwrap());
    let (lower, upper) = (of("a.b"), of("A.b"));
    let held = registrar.register(&lower, &Attempt::new(LONG)).await;
    let held = held.unwrap();
    // Without the look-up, as it is made before the other one is there.
    let blind = Attempt::new(LONG).with_id_is_new();
    let other = registrar.register(&upper, &blind).await.unwrap();
    let is_told = async || match held.renew().await {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.report());
            true
        }
    };
    eventually("missed", LONG, is_told).await;
    let again = Attempt::new(TTL).with_was_confirmed();
    let refused = registrar.register(&lower, &again).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    let report = refused.report().to_string();
    assert!(
        report.contains("ignores case") && report.contains("A.b"),
        "{report}"
    );
    // It has left nothing that would take the place of the other one again.
    registrar.register(&upper, &again).await.unwrap();
    other.renew().await.unwrap();
    let listed = operator.entries(&service).await;
    let ids = listed.iter().map(|entry| entry["Service"]["ID"].clone());
    assert_eq!(ids.collect::<Vec<_>>(), [service_id(&upper.record_id())]);
    registrar.withdraw(&upper.record_id()).await.unwrap();
}

/// Go's own clients would clean it on the way.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_name_that_looks_like_a_path_is_asked_for_as_it_is() {
    let (own, registry) = (service(), registry_at(&server()));
    for name in [
        format!("/{own}"),
        format!("{own}//b"),
        format!("{own}/../b"),
        format!("./{own}/.."),
    ] {
        let instance = Instance::new(&name, "10.0.0.1:1").unwrap();
        let guard = registry.register(instance).await.unwrap();
        assert_eq!(registry.list(&name).await.unwrap().len(), 1, "{name}");
        guard.deregister().await.unwrap();
        assert_eq!(registry.list(&name).await.unwrap().len(), 0, "{name}");
    }
}
