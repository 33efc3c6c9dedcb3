//! The whole stack over a running etcd: what one process registers, another one sees.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{config, instance, keys, prefix, raw, registry, server, until};
use sd_core::{ErrorKind, Holder, Incarnation, Instance, ServiceName, State};

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
