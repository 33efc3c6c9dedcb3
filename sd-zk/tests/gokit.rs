//! Side by side with go-kit's zk package: its registrars and instancers and ours see each other.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;

use common::{
    LONG, TTL, config, end_session, instance, is_live_with, prefix, raw, registry, server, until,
};
use sd_core::port::Attempt;
use sd_core::{Backend, ErrorKind, Incarnation, Instance, InstanceId, ServiceName, State};
use sd_testing::Peer;
use sd_zk::{Format, SCHEME, ZkBackend};
use serde_json::Value;
use tokio::time::timeout;
use zookeeper_client as zk;

/// go-kit doing this, at the server that all share.
fn go_kit(action: &str, rest: &[&str]) -> Peer {
    let server = server();
    let arguments = [&["zk", action, &server], rest].concat();
    Peer::start("SD_TEST_ZK_GO_KIT", &arguments).unwrap()
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

/// The next set that an Instancer of go-kit has.
async fn next(instancer: &mut Peer) -> Vec<String> {
    let line = timeout(LONG, instancer.line()).await.unwrap().unwrap();
    let told = json(&line)["instances"].take();
    let mut told: Vec<String> = serde_json::from_value(told).unwrap_or_else(|_| panic!("{line}"));
    told.sort();
    told
}

/// A Registrar of go-kit that has done its part.
async fn registered(prefix: &str, service: &str, data: &str) -> Peer {
    let mut registrar = go_kit("register", &[prefix, service, data]);
    let line = timeout(LONG, registrar.line()).await.unwrap().unwrap();
    assert_eq!(json(&line)["action"], "register", "{line}");
    registrar
}

/// The nodes of a service, each with its data and what it is.
async fn nodes(raw: &zk::Client, folder: &str) -> Vec<(String, String, zk::Stat)> {
    let mut found = Vec::new();
    for node in raw.list_children(folder).await.unwrap() {
        let (data, stat) = raw.get_data(&format!("{folder}/{node}")).await.unwrap();
        found.push((node, String::from_utf8(data).unwrap(), stat));
    }
    found
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn what_go_kit_registers_is_read_beside_our_own_records() {
    let (prefix, raw) = (prefix(), raw(&server()).await);
    let registry = registry(&prefix);
    let _ours = registry.register(instance(1)).await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;

    let with_scheme = registered(&prefix, "greeter", "http://1.2.3.4:8080").await;
    let _without = registered(&prefix, "greeter", "5.6.7.8:9090").await;
    let state = until(&mut seen, "all there", is_live_with(3)).await;
    let read = |address: &str| {
        let mut all = state.snapshot().instances().iter();
        let found = all.find(|one| one.endpoint().to_string() == address);
        found.unwrap().as_ref().clone()
    };
    let (first, second) = (read("1.2.3.4:8080"), read("5.6.7.8:9090"));
    let scheme = first.metadata().get(SCHEME).map(String::as_str);
    assert_eq!(scheme, Some("http"));
    assert!(second.metadata().is_empty() && second.is_ready());
    let stored = nodes(&raw, &format!("{prefix}/greeter")).await;
    let (_, _, stat) = stored
        .iter()
        .find(|(_, data, _)| data == "5.6.7.8:9090")
        .unwrap();
    let run = Incarnation::from_u64(stat.czxid.cast_unsigned());
    assert_eq!(second.incarnation(), run);
    // Its Deregister deletes nothing, but its session ends.
    timeout(LONG, with_scheme.dismiss()).await.unwrap().unwrap();
    let is_gone = |state: &State| {
        let mut all = state.snapshot().instances().iter();
        is_live_with(2)(state) && all.all(|one| one.id() != first.id())
    };
    until(&mut seen, "gone", is_gone).await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn go_kit_sees_what_we_register_for_it_until_it_is_withdrawn_or_its_session_ends() {
    let (prefix, raw) = (prefix(), raw(&server()).await);
    let folder = format!("{prefix}/foosvc");
    let mut instancer = go_kit("watch", &[&folder]);
    assert!(next(&mut instancer).await.is_empty());
    let _theirs = registered(&prefix, "foosvc", "5.6.7.8:9090").await;
    let theirs = "5.6.7.8:9090";
    assert_eq!(next(&mut instancer).await, [theirs]);
    let config = config(&prefix).with_format(Format::GoKit);
    let backend = Arc::new(ZkBackend::new(config).unwrap());
    let registrar = backend.registrar().unwrap();
    let id = InstanceId::new("1.2.3.4:8080").unwrap();
    let ours = Instance::new("foosvc", "1.2.3.4:8080").unwrap().with_id(id);
    for crashes in [false, true] {
        let attempt = Attempt::new(TTL);
        registrar.register(&ours, &attempt).await.unwrap();
        let both = [theirs, "http://1.2.3.4:8080"];
        assert_eq!(next(&mut instancer).await, both);
        let all = nodes(&raw, &folder).await;
        let (_, data, stat) = all
            .iter()
            .find(|(node, ..)| node == "1.2.3.4:8080")
            .unwrap();
        assert_eq!(data, both[1]);
        if crashes {
            end_session(&server(), stat.ephemeral_owner).await;
        } else {
            registrar.withdraw(&ours.record_id()).await.unwrap();
        }
        assert_eq!(next(&mut instancer).await, [theirs]);
    }
}

/// Its nodes are named by ZooKeeper, so that each is an id of its own to us.
#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_node_of_go_kit_is_never_taken_over_or_deleted() {
    let (prefix, raw) = (prefix(), raw(&server()).await);
    let _theirs = registered(&prefix, "foosvc", "http://1.2.3.4:8080").await;
    let folder = format!("{prefix}/foosvc");
    let before = nodes(&raw, &folder).await;
    let registry = registry(&prefix);
    let listed = registry.list("foosvc").await.unwrap();
    let theirs = listed.instances()[0].as_ref();
    for format in [Format::GoKit, Format::Curator] {
        let config = config(&prefix).with_format(format);
        let backend = Arc::new(ZkBackend::new(config).unwrap());
        let registrar = backend.registrar().unwrap();
        let service = ServiceName::new("foosvc").unwrap();
        let ours = Instance::new(service, "10.0.0.1:1").unwrap();
        let ours = ours.with_id(theirs.id().clone());
        let refused = registrar.register(&ours, &Attempt::new(TTL)).await;
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
        assert_eq!(error.holder().unwrap().endpoint, *theirs.endpoint());
        registrar.withdraw(&ours.record_id()).await.unwrap();
    }
    let key = |all: &[(String, String, zk::Stat)]| -> Vec<(String, String, i64)> {
        let all = all.iter();
        all.map(|(node, data, stat)| (node.clone(), data.clone(), stat.mzxid))
            .collect()
    };
    assert_eq!(key(&nodes(&raw, &folder).await), key(&before));
}
