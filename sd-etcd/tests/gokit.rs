//! Side by side with go-kit's etcdv3 package: its registrars and instancers and ours see each other.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;

use common::{
    LONG, TTL, config, entries, event, instance, is_live_with, prefix, raw, registry, server, until,
};
use etcd_client::{KeyValue, Txn, TxnOp};
use sd_core::port::Attempt;
use sd_core::{Backend, Incarnation, Instance, InstanceId};
use sd_etcd::{EtcdBackend, Format, SCHEME};
use sd_testing::Peer;
use serde_json::Value;
use tokio::time::timeout;

/// go-kit doing this, at the server that all share.
fn go_kit(action: &str, rest: &[&str]) -> Peer {
    let server = server();
    let arguments = [&["etcd", action, &server], rest].concat();
    Peer::start("SD_TEST_ETCD_GO_KIT", &arguments).unwrap()
}

/// The next set that an Instancer of go-kit has.
async fn next(instancer: &mut Peer) -> Vec<String> {
    let line = timeout(LONG, instancer.line()).await.unwrap().unwrap();
    let mut told: Value = serde_json::from_str(&line).unwrap();
    serde_json::from_value(told["instances"].take()).unwrap_or_else(|_| panic!("{line}"))
}

/// A Registrar of go-kit that has done its part.
async fn registered(prefix: &str, key: &str, value: &str) -> Peer {
    let mut registrar = go_kit("register", &[&format!("{prefix}/{key}"), value]);
    let line = timeout(LONG, registrar.line()).await.unwrap().unwrap();
    assert!(line.contains(r#""action":"register""#), "{line}");
    registrar
}

fn foo() -> Instance {
    let id = InstanceId::new("1.2.3.4:8080").unwrap();
    Instance::new("foosvc", "1.2.3.4:8080").unwrap().with_id(id)
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn what_go_kit_registers_is_read_beside_our_own_records() {
    let (prefix, mut raw) = (prefix(), raw(&server()).await);
    let registry = registry(&prefix);
    let _ours = registry.register(instance(1)).await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;

    let with_scheme = registered(&prefix, "greeter/1.2.3.4:8080", "http://1.2.3.4:8080").await;
    let _without = registered(&prefix, "greeter/5.6.7.8:9090", "5.6.7.8:9090").await;
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
    let stored = entries(&mut raw, &format!("{prefix}/greeter")).await;
    let kept = |kv: &&KeyValue| kv.value_str().unwrap() == "5.6.7.8:9090";
    let lease = stored.iter().find(kept).unwrap().lease();
    assert_eq!(
        second.incarnation(),
        Incarnation::from_u64(lease.cast_unsigned())
    );
    timeout(LONG, with_scheme.dismiss()).await.unwrap().unwrap();
    until(&mut seen, "gone", is_live_with(2)).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn go_kit_sees_what_we_register_for_it_until_it_is_withdrawn_or_its_lease_ends() {
    let (prefix, mut raw) = (prefix(), raw(&server()).await);
    let config = config(&prefix).with_format(Format::GoKit);
    let mut instancer = go_kit("watch", &[&format!("{prefix}/foosvc/")]);
    assert!(next(&mut instancer).await.is_empty());
    let registrar = Arc::new(EtcdBackend::new(config).unwrap())
        .registrar()
        .unwrap();
    for crashes in [false, true] {
        let ours = foo();
        registrar
            .register(&ours, &Attempt::new(LONG))
            .await
            .unwrap();
        assert_eq!(next(&mut instancer).await, ["http://1.2.3.4:8080"]);
        if crashes {
            let stored = entries(&mut raw, &prefix).await.remove(0);
            raw.lease_revoke(stored.lease()).await.unwrap();
        } else {
            registrar.withdraw(&ours.record_id()).await.unwrap();
        }
        assert!(next(&mut instancer).await.is_empty());
    }
}

/// go-kit's Instancer reads the values of all keys under a prefix and nothing else.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn what_we_register_for_go_kit_is_a_plain_value_on_a_lease() {
    let (prefix, mut raw) = (prefix(), raw(&server()).await);
    let registry = sd_etcd::connect(config(&prefix).with_format(Format::GoKit)).unwrap();
    let mut guard = registry.register(foo()).ttl(TTL).await.unwrap();

    let stored = entries(&mut raw, &prefix).await.remove(0);
    assert_eq!(
        stored.key_str().unwrap(),
        format!("{prefix}/foosvc/1.2.3.4:8080")
    );
    assert_eq!(stored.value_str().unwrap(), "http://1.2.3.4:8080");
    assert_ne!(stored.lease(), 0);

    // Deleted by an operator, it comes back; withdrawn, it goes.
    event(&mut guard, "registered").await;
    raw.delete(stored.key(), None).await.unwrap();
    event(&mut guard, "lost").await;
    event(&mut guard, "registered").await;
    assert_eq!(entries(&mut raw, &prefix).await.len(), 1);
    guard.deregister().await.unwrap();
    assert!(entries(&mut raw, &prefix).await.is_empty());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn an_entry_of_go_kit_is_never_taken_over_or_deleted() {
    let (prefix, mut raw) = (prefix(), raw(&server()).await);
    let _theirs = registered(&prefix, "foosvc/1.2.3.4:8080", "http://1.2.3.4:8080").await;
    for format in [Format::GoKit, Format::Json] {
        let backend = EtcdBackend::new(config(&prefix).with_format(format)).unwrap();
        let (registrar, ours) = (Arc::new(backend).registrar().unwrap(), foo());
        let refused = registrar.register(&ours, &Attempt::new(TTL)).await;
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), sd_core::ErrorKind::Conflict);
        assert_eq!(error.holder().unwrap().endpoint, *ours.endpoint());
        registrar.withdraw(&ours.record_id()).await.unwrap();
    }
    let left = entries(&mut raw, &prefix).await.remove(0);
    assert_eq!(
        (left.value_str().unwrap(), left.version()),
        ("http://1.2.3.4:8080", 1)
    );
}

/// go-kit has no names but what its users write into keys, slashes included.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn go_kit_and_we_see_each_others_odd_names() {
    let prefix = prefix();
    let json = registry(&prefix);
    let for_go_kit = sd_etcd::connect(config(&prefix).with_format(Format::GoKit)).unwrap();
    for name in [
        "users/v1/profile",
        "größe",
        "_udp.web",
        "two words",
        "100%",
        "a%2Fb",
        "Upper.Case",
    ] {
        let mut instancer = go_kit("watch", &[&format!("{prefix}/{name}/")]);
        assert!(next(&mut instancer).await.is_empty());
        let mut seen = json.subscribe(name).unwrap();
        let key = format!("{name}/5.6.7.8:9090/of them");
        let theirs = registered(&prefix, &key, "5.6.7.8:9090").await;
        assert_eq!(next(&mut instancer).await, ["5.6.7.8:9090"]);
        let state = until(&mut seen, "theirs", is_live_with(1)).await;
        let id = state.snapshot().instances()[0].id().clone();
        assert_eq!(id.as_str(), "5.6.7.8:9090/of them");

        let ours = Instance::new(name, "1.2.3.4:8080").unwrap();
        let guard = for_go_kit.register(ours).await.unwrap();
        let both = ["5.6.7.8:9090", "http://1.2.3.4:8080"];
        assert_eq!(next(&mut instancer).await, both, "{name}");
        until(&mut seen, "both", is_live_with(2)).await;
        // Written as JSON it is in a folder of our own where the name is odd, and is seen by us beside the others.
        let third = Instance::new(name, "10.0.0.1:1").unwrap();
        let third = json.register(third).await.unwrap();
        until(&mut seen, "all", is_live_with(3)).await;
        let listed = json.list(name).await.unwrap();
        assert_eq!((listed.len(), listed.skipped().len()), (3, 0), "{name}");
        third.deregister().await.unwrap();
        guard.deregister().await.unwrap();
        until(&mut seen, "theirs again", is_live_with(1)).await;
        timeout(LONG, theirs.dismiss()).await.unwrap().unwrap();
        until(&mut seen, "gone", is_live_with(0)).await;
    }
}

/// Its entries have no room to say that they were withdrawn.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn with_its_format_instances_that_deregister_together_are_not_held() {
    let (prefix, mut raw) = (prefix(), raw(&server()).await);
    let registry = sd_etcd::connect(config(&prefix).with_format(Format::GoKit)).unwrap();
    let mut keys = Vec::new();
    for port in 1..=4 {
        let address = format!("10.0.0.1:{port}");
        let key = format!("{prefix}/greeter/{address}");
        raw.put(key.as_str(), address, None).await.unwrap();
        keys.push(key);
    }
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "all there", is_live_with(4)).await;
    let gone = keys
        .iter()
        .skip(1)
        .map(|key| TxnOp::delete(key.as_str(), None));
    let gone: Vec<_> = gone.collect();
    raw.txn(Txn::new().and_then(gone)).await.unwrap();
    let left = timeout(LONG, seen.changed()).await.unwrap().unwrap();
    assert_eq!(
        (left.snapshot().len(), left.snapshot().held().len()),
        (1, 0)
    );
}
