//! go-kit's registrars and instancers, and ours, see each other. The entries are those of go-kit's own examples and tests.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{
    TTL, config, entries, event, instance, is_live_with, prefix, raw, registry, server, ttl, until,
};
use etcd_client::PutOptions;
use sd_core::{Incarnation, InstanceId};
use sd_etcd::{Format, SCHEME};

/// go-kit's Registrar: a lease, then an unconditional put of `<prefix><service>/<address>` = `http://<address>`.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn what_go_kit_registers_is_read_beside_our_own_records() {
    let (prefix, mut gokit) = (prefix(), raw(&server()).await);
    let registry = registry(&prefix);
    let _ours = registry.register(instance(1)).await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;

    let lease = gokit.lease_grant(10, None).await.unwrap().id();
    let attached = PutOptions::new().with_lease(lease);
    for (key, value) in [
        ("1.2.3.4:8080", "http://1.2.3.4:8080"),
        ("5.6.7.8:9090", "5.6.7.8:9090"),
    ] {
        let key = format!("{prefix}/greeter/{key}");
        gokit.put(key, value, Some(attached.clone())).await.unwrap();
    }
    let state = until(&mut seen, "all there", is_live_with(3)).await;
    let read = |id: &str| {
        let id = InstanceId::new(id).unwrap();
        state.snapshot().get(&id).unwrap().as_ref().clone()
    };
    let (first, second) = (read("1.2.3.4:8080"), read("5.6.7.8:9090"));
    assert_eq!(first.endpoint().to_string(), "1.2.3.4:8080");
    assert_eq!(
        first.metadata().get(SCHEME).map(String::as_str),
        Some("http")
    );
    assert_eq!(second.endpoint().to_string(), "5.6.7.8:9090");
    assert!(second.metadata().is_empty() && second.is_ready());
    assert_eq!(
        second.incarnation(),
        Incarnation::from_u64(lease.cast_unsigned())
    );

    // go-kit's Deregister: an unconditional delete.
    gokit
        .delete(format!("{prefix}/greeter/1.2.3.4:8080"), None)
        .await
        .unwrap();
    until(&mut seen, "gone", is_live_with(2)).await;
}

/// go-kit's Instancer reads the values of all keys under a prefix and nothing else.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn what_we_register_for_go_kit_is_a_plain_value_on_a_lease() {
    let (prefix, mut gokit) = (prefix(), raw(&server()).await);
    let registry = sd_etcd::connect(config(&prefix).with_format(Format::GoKit)).unwrap();
    let id = InstanceId::new("1.2.3.4:8080").unwrap();
    let ours = sd_core::Instance::new("foosvc", "1.2.3.4:8080")
        .unwrap()
        .with_id(id);
    let mut guard = registry.register_with(ours, ttl(TTL)).await.unwrap();

    let stored = entries(&mut gokit, &prefix).await.remove(0);
    assert_eq!(
        stored.key_str().unwrap(),
        format!("{prefix}/foosvc/1.2.3.4:8080")
    );
    assert_eq!(stored.value_str().unwrap(), "http://1.2.3.4:8080");
    assert_ne!(stored.lease(), 0);

    // Deleted by an operator, it comes back; withdrawn, it goes.
    event(&mut guard, "registered").await;
    gokit.delete(stored.key(), None).await.unwrap();
    event(&mut guard, "lost").await;
    event(&mut guard, "registered").await;
    assert_eq!(entries(&mut gokit, &prefix).await.len(), 1);
    guard.deregister().await.unwrap();
    assert!(entries(&mut gokit, &prefix).await.is_empty());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn an_entry_of_go_kit_is_never_taken_over_or_deleted() {
    let (prefix, mut gokit) = (prefix(), raw(&server()).await);
    let key = format!("{prefix}/foosvc/1.2.3.4:8080");
    gokit
        .put(key.as_str(), "http://1.2.3.4:8080", None)
        .await
        .unwrap();
    for format in [Format::GoKit, Format::Json] {
        let registry = sd_etcd::connect(config(&prefix).with_format(format)).unwrap();
        let id = InstanceId::new("1.2.3.4:8080").unwrap();
        let ours = sd_core::Instance::new("foosvc", "1.2.3.4:8080")
            .unwrap()
            .with_id(id);
        let error = registry.register(ours).await.unwrap_err();
        assert_eq!(error.kind(), sd_core::ErrorKind::Conflict);
    }
    let left = entries(&mut gokit, &prefix).await.remove(0);
    assert_eq!(
        (left.value_str().unwrap(), left.version()),
        ("http://1.2.3.4:8080", 1)
    );
}
