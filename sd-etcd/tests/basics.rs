//! The whole stack over a running etcd: what one process registers, another one sees.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::{
    config, instance, is_live_with, keys, own_server, prefix, raw, registry, registry_at, server,
    until,
};
use etcd_client::{Txn, TxnOp};
use sd_core::{ErrorKind, Holder, Incarnation, Instance, ServiceName, State};
use sd_etcd::Format;
use server_programs::LocalServer;
use tokio::time::timeout;

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn what_is_registered_is_seen_listed_updated_and_withdrawn() {
    let prefix = prefix();
    let (writer, reader) = (registry(&prefix), registry(&prefix));
    let mut seen = reader.subscribe("greeter").unwrap();
    until(&mut seen, "known", State::is_known).await;

    let guard = writer
        .register(instance(1).with_zone("a").with_tag("blue"))
        .await
        .unwrap();
    let wanted = guard.instance();
    let state = until(&mut seen, "there", |state| !state.snapshot().is_empty()).await;
    assert_eq!(
        state.snapshot().instances(),
        [std::sync::Arc::clone(&wanted)]
    );

    let service = wanted.service().clone();
    let listed = reader.list(&service).await.unwrap();
    assert_eq!(listed.instances(), state.snapshot().instances());
    assert_eq!(reader.services().await.unwrap(), [service]);

    guard.set_ready(false).await.unwrap();
    until(&mut seen, "unready", |state| {
        state.snapshot().instances().iter().any(|i| !i.is_ready())
    })
    .await;

    guard.deregister().await.unwrap();
    let state = until(&mut seen, "gone", |state| state.snapshot().is_empty()).await;
    assert_eq!(state.snapshot().withdrawn(), [wanted.id().clone()]);
    assert!(keys(&mut raw(&server()).await, &prefix).await.is_empty());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn another_incarnation_is_refused_and_told_who_holds_the_id() {
    let prefix = prefix();
    let (first, second) = (registry(&prefix), registry(&prefix));
    let mine = instance(1);
    let theirs = mine
        .clone()
        .with_incarnation(Incarnation::from_u64(42))
        .with_endpoint("10.0.0.2:1".parse().unwrap());
    let guard = first.register(mine.clone()).await.unwrap();
    let error = second.register(theirs.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let report = error.report().to_string();
    assert!(report.contains("10.0.0.1:1"), "{report}");
    assert_eq!(error.holder(), Some(&Holder::from(&mine)));
    // The refused one cleaned up after itself, and only after itself.
    assert_eq!(keys(&mut raw(&server()).await, &prefix).await.len(), 1);

    guard.deregister().await.unwrap();
    second.register(theirs).await.unwrap();
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_service_is_not_mixed_up_with_one_whose_name_begins_the_same() {
    let prefix = prefix();
    let registry = registry(&prefix);
    let copy_of = |name: &str| Instance::new(name, "10.0.0.1:1").unwrap();
    let mut guards = Vec::new();
    for name in ["a", "a-b", "a.b", "a0", "ab"] {
        guards.push(registry.register(copy_of(name)).await.unwrap());
    }
    let services = registry.services().await.unwrap();
    let names: Vec<_> = services.iter().map(ServiceName::as_str).collect();
    assert_eq!(names, ["a", "a-b", "a.b", "a0", "ab"]);
    for service in services {
        assert_eq!(registry.list(&service).await.unwrap().len(), 1, "{service}");
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_closed_registry_answers_closed_and_leaves_nothing() {
    let prefix = prefix();
    let registry = sd_etcd::connect(config(&prefix)).unwrap();
    let _guard = registry.register(instance(1)).await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", |state| !state.snapshot().is_empty()).await;
    registry.close().await.unwrap();
    registry.close().await.unwrap();
    assert!(keys(&mut raw(&server()).await, &prefix).await.is_empty());
    let error = registry.backend().services().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(seen.changed().await.unwrap_err().kind(), ErrorKind::Closed);
}

/// How long the list of 50 000 services may take. Seen: less than a second.
const LISTED_WITHIN: Duration = Duration::from_secs(20);

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn fifty_thousand_services_are_listed_and_followed_in_pages() {
    let server = own_server().await;
    let url = server.program().url();
    let (mut raw, prefix) = (raw(&url).await, prefix());
    let services = (0..50_000).map(|n| format!("{prefix}/service-{n:05}/i"));
    // Another program's keys lie among them, and one service has many instances.
    let flat = (0..5_000).map(|n| format!("{prefix}/flat-{n:05}"));
    let many = (0..5_000).map(|n| format!("{prefix}/service-25000/{n}"));
    let all: Vec<String> = services.chain(flat).chain(many).collect();
    for some in all.chunks(100) {
        let puts = some.iter().map(|key| TxnOp::put(key.as_str(), "h:1", None));
        let put = Txn::new().and_then(puts.collect::<Vec<_>>());
        raw.txn(put).await.unwrap();
    }
    let registry = registry_at(&url, &prefix);
    let listed = timeout(LISTED_WITHIN, registry.services()).await.unwrap();
    let listed = listed.unwrap();
    assert_eq!(listed.len(), 50_000);
    assert_eq!(listed[49_999].as_str(), "service-49999");
    let followed = registry.subscribe_services().unwrap();
    let known = followed.wait_until_known(LISTED_WITHIN).await.unwrap();
    assert_eq!(known.services(), listed);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn upstreams_of_apisix_are_read_and_followed_and_never_written() {
    let prefix = prefix();
    let mut raw = raw(&server()).await;
    let upstream = |nodes: &str| format!(r#"{{"id":"1","nodes":{nodes},"type":"roundrobin"}}"#);
    let key = format!("{prefix}/1");
    for (key, value) in [
        (format!("{prefix}/"), "init_dir".to_owned()),
        (format!("{prefix}/10"), upstream("[]")),
        (key.clone(), upstream(r#"{"10.0.0.1:1":1,"10.0.0.1:2":0}"#)),
    ] {
        raw.put(key, value, None).await.unwrap();
    }
    let registry = sd_etcd::connect(config(&prefix).with_format(Format::Apisix)).unwrap();
    let list = registry.list_services().await.unwrap();
    assert_eq!(
        list.services,
        ["1", "10"].map(|id| ServiceName::new(id).unwrap())
    );
    assert_eq!(list.unlisted, 0);
    let listed = registry.list("1").await.unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    let mut seen = registry.subscribe("1").unwrap();
    until(&mut seen, "two nodes", is_live_with(2)).await;
    let three = r#"[{"host":"10.0.0.1","port":1,"weight":1},{"host":"10.0.0.1","port":2,"weight":1,"priority":-1},{"host":"h","weight":1}]"#;
    raw.put(key.as_str(), upstream(three), None).await.unwrap();
    until(&mut seen, "three nodes", is_live_with(3)).await;
    let tiers = seen
        .state()
        .snapshot()
        .instances()
        .iter()
        .map(|one| one.priority())
        .collect::<Vec<_>>();
    assert_eq!(tiers, [0, 1, 0]);
    let services = registry.subscribe_services().unwrap();
    let known = services.wait_until_known(LISTED_WITHIN).await.unwrap();
    assert_eq!(known.services().len(), 2);
    raw.delete(key.as_str(), None).await.unwrap();
    until(&mut seen, "none", is_live_with(0)).await;
    let refused = registry.register(instance(3)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn records_of_other_projects_are_read_and_followed_and_never_written() {
    for (format, stored) in [
        (
            Format::Resolver,
            r#"{"Op":0,"Addr":"10.0.0.1:PORT","Metadata":null}"#,
        ),
        (
            Format::Kratos,
            r#"{"id":"i","name":"greeter","version":"v1","metadata":null,"endpoints":["grpc://10.0.0.1:PORT?isSecure=false"]}"#,
        ),
        (
            Format::GoMicro,
            r#"{"name":"greeter","version":"v1","metadata":null,"endpoints":[],"nodes":[{"id":"i","address":"10.0.0.1:PORT","metadata":null}]}"#,
        ),
    ] {
        let prefix = prefix();
        let mut raw = raw(&server()).await;
        let key = format!("{prefix}/greeter/i");
        let at = |port: u16| stored.replace("PORT", &port.to_string());
        raw.put(key.as_str(), at(1), None).await.unwrap();
        let ours = format!("{prefix}/greeter/ours");
        let record = serde_json::to_string(&instance(9)).unwrap();
        raw.put(ours, record, None).await.unwrap();

        let registry = sd_etcd::connect(config(&prefix).with_format(format)).unwrap();
        assert_eq!(registry.services().await.unwrap()[0].as_str(), "greeter");
        let listed = registry.list("greeter").await.unwrap();
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!(listed.skipped().len(), 1, "{listed:?}");
        let mut seen = registry.subscribe("greeter").unwrap();
        let is_at = |port: u16| {
            move |state: &State| {
                let mut all = state.snapshot().instances().iter();
                all.any(|one| one.endpoint().port() == Some(port))
            }
        };
        until(&mut seen, "at the first port", is_at(1)).await;
        raw.put(key.as_str(), at(2), None).await.unwrap();
        until(&mut seen, "at the next port", is_at(2)).await;

        let refused = registry.register(instance(3)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        let record = listed.instances()[0].record_id();
        let refused = registry.remove_record(&record).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
    }
}
