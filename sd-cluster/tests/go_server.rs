//! Our client at an etp server in Go, which answers as each test says: well, late, with an error, or not at all.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod go_peer;

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use sd_cluster::{ClusterConfig, Received, RemoteConfig, connect, module};
use sd_core::{ErrorKind, Instance, Registry, State};
use sd_testing::{LONG, free_port, is_stale, until};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::go_peer::GoPeer;

const PING: Duration = Duration::from_millis(500);

fn config(addresses: &[SocketAddr]) -> ClusterConfig {
    ClusterConfig::new(addresses.iter().map(SocketAddr::to_string))
        .with_module("B")
        .with_version("1.2.3")
        .with_ping_interval(PING)
}

async fn server() -> (GoPeer, SocketAddr) {
    GoPeer::server("127.0.0.1:0".parse().unwrap()).await
}

/// Has the server send events before it answers `name` with `data`.
async fn answer(server: &mut GoPeer, name: &str, before: Value, data: &str) {
    server
        .say(json!({"command": "answer", "name": name, "before": before, "data": data}))
        .await;
}

/// Has it tell hosts of `A`, as JSON, when it is asked.
async fn tell_hosts(server: &mut GoPeer, hosts: &str) {
    let before = json!([{"name": "A_MODULE_CONNECTED", "data": hosts}]);
    answer(server, "MODULE:SEND_REQUIREMENTS", before, "ok").await;
}

async fn send(server: &mut GoPeer, name: &str, data: &str) {
    server
        .say(json!({"command": "send", "name": name, "data": data}))
        .await;
}

/// A receiver, and what it gets.
fn receiver() -> (RemoteConfig, mpsc::Receiver<Value>) {
    let (tell, told) = mpsc::channel(8);
    let config = RemoteConfig::new(r#"{"default":  1}"#, move |received: Received<Value>| {
        let tell = tell.clone();
        async move { tell.send((*received.config).clone()).await }
    });
    (config.unwrap(), told)
}

async fn next(told: &mut mpsc::Receiver<Value>) -> Value {
    timeout(LONG, told.recv()).await.unwrap().unwrap()
}

fn addresses(state: &State) -> Vec<String> {
    let instances = state.snapshot().instances().iter();
    let mut addresses: Vec<String> = instances.map(|one| one.endpoint().to_string()).collect();
    addresses.sort();
    addresses
}

fn are(expected: &[&str]) -> impl Fn(&State) -> bool {
    let expected: Vec<String> = expected.iter().map(|&one| one.to_owned()).collect();
    move |state| state.is_known() && addresses(state) == expected
}

async fn register(registry: &Registry) -> sd_core::Result<sd_core::RegistrationGuard> {
    let instance = Instance::new("B", "10.0.0.1:9999").unwrap();
    registry.register(instance).await
}

#[tokio::test]
#[ignore = "needs cluster's peer in Go: cargo xtask test --backend cluster"]
async fn the_server_hears_of_us_what_it_hears_of_a_module_in_go() {
    let (mut server, address) = server().await;
    let configs =
        json!([{"name": "CONFIG:SEND_CONFIG_WHEN_CONNECTED", "data": r#"{"from":"server"}"#}]);
    answer(&mut server, "MODULE:SEND_CONFIG_SCHEMA", configs, "ok").await;
    tell_hosts(
        &mut server,
        r#"[{"ip":"10.2.9.1","port":"1"},{"ip":"fe80::1","port":"2"}]"#,
    )
    .await;
    let (remote, mut told) = receiver();
    let registry = connect(
        config(&[address])
            .with_required_module("A")
            .with_remote_config(remote),
    )
    .unwrap();
    timeout(LONG, module(&registry).unwrap().ready())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(next(&mut told).await, json!({"from": "server"}));
    let connected = server.next("connected").await;
    assert_eq!(connected["query"], "module_name=B");
    let schema = server.received("MODULE:SEND_CONFIG_SCHEMA").await;
    // Byte for byte.
    let data = schema["data"].as_str().unwrap();
    assert!(data.contains(r#""config":{"default":  1}"#), "{data}");
    assert_eq!(schema["ack"], 1);
    let requirements = server.received("MODULE:SEND_REQUIREMENTS").await;
    assert_eq!(
        requirements["data"],
        r#"{"requiredModules":["A"],"requireRoutes":false}"#
    );

    let guard = register(&registry).await.unwrap();
    let ready = server.received("MODULE:READY").await;
    let declared: Value = serde_json::from_str(ready["data"].as_str().unwrap()).unwrap();
    assert_eq!(declared["moduleName"], "B");
    assert_eq!(
        declared["address"],
        json!({"ip": "10.0.0.1", "port": "9999"})
    );
    assert_eq!(declared["transport"], "grpc");

    let mut seen = registry.subscribe("A").unwrap();
    until(&mut seen, "both", are(&["10.2.9.1:1", "[fe80::1]:2"])).await;
    send(
        &mut server,
        "A_MODULE_CONNECTED",
        r#"[{"ip":"10.2.9.1","port":"1"}]"#,
    )
    .await;
    until(&mut seen, "one", are(&["10.2.9.1:1"])).await;
    send(&mut server, "A_MODULE_CONNECTED", "null").await;
    until(&mut seen, "none", are(&[])).await;

    // An event that is to be acknowledged, as no service sends it, and one that is unknown.
    server.say(json!({"command": "send", "name": "CONFIG:SEND_CONFIG_CHANGED", "data": r#"{"n":2}"#, "ack": true})).await;
    assert_eq!(next(&mut told).await, json!({"n": 2}));
    guard.deregister().await.unwrap();
    let left = server.next("disconnected").await;
    assert_eq!(
        (&left["normal"], &left["connection"]),
        (&json!(true), &ready["connection"])
    );
    registry.close().await.unwrap();
    assert_eq!(server.next("disconnected").await["normal"], true);
    let errors = server
        .seen
        .iter()
        .filter(|event| event["event"] == "error")
        .count();
    assert_eq!(errors, 0, "{:?}", server.seen);
}

#[tokio::test]
#[ignore = "needs cluster's peer in Go: cargo xtask test --backend cluster"]
async fn an_answer_that_is_an_error_or_never_comes_is_a_failure_and_a_late_one_is_none() {
    let (mut server, address) = server().await;
    let limit = Duration::from_secs(3);
    let registry = connect(config(&[address]).with_handshake_timeout(limit)).unwrap();
    let instance = || Instance::new("B", "10.0.0.1:9999").unwrap();
    // The request of a registration ends with its first refusal that is not a conflict, so it is looked at in the background.
    answer(
        &mut server,
        "MODULE:READY",
        json!([]),
        "handle onModuleReady: no",
    )
    .await;
    let refused = registry.register(instance()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Rejected, "{}", refused.report());
    assert!(
        refused
            .report()
            .to_string()
            .contains("handle onModuleReady: no")
    );
    answer(&mut server, "MODULE:READY", json!([]), "").await;
    let empty = registry.register(instance()).await.unwrap_err();
    assert_eq!(empty.kind(), ErrorKind::Rejected, "{}", empty.report());

    server
        .say(json!({"command": "answer", "name": "MODULE:READY", "after_ms": -1}))
        .await;
    let began = Instant::now();
    let never = registry
        .register(instance())
        .confirm_within(limit)
        .await
        .unwrap_err();
    assert_eq!(never.kind(), ErrorKind::Timeout, "{}", never.report());
    assert!(began.elapsed() < LONG);

    // A module in Go waits for one second, and no longer.
    server
        .say(json!({"command": "answer", "name": "MODULE:READY", "data": "ok", "after_ms": 1500}))
        .await;
    let guard = registry.register(instance()).await.unwrap();
    guard.deregister().await.unwrap();
}

#[tokio::test]
#[ignore = "needs cluster's peer in Go: cargo xtask test --backend cluster"]
async fn what_the_server_closes_kills_or_freezes_is_stale_and_live_again_and_of_two_servers_a_dead_one_costs_nothing()
 {
    let dead: SocketAddr = format!("127.0.0.1:{}", free_port().unwrap())
        .parse()
        .unwrap();
    let (mut first, address) = server().await;
    let hosts = r#"[{"ip":"10.2.9.1","port":"1"}]"#;
    tell_hosts(&mut first, hosts).await;
    let registry = connect(config(&[dead, address])).unwrap();
    let mut seen = registry.subscribe("A").unwrap();
    let there = are(&["10.2.9.1:1"]);
    let live = |state: &State| there(state) && !is_stale(state);
    until(&mut seen, "live", &live).await;

    // Closed in order: the next session has what is new.
    tell_hosts(&mut first, r#"[{"ip":"10.2.9.2","port":"1"}]"#).await;
    first.say(json!({"command": "close"})).await;
    until(&mut seen, "again", are(&["10.2.9.2:1"])).await;

    // Frozen: nothing closes, and what is known stays.
    first.signal(Signal::STOP);
    let frozen = Instant::now();
    let stale = until(&mut seen, "stale", is_stale).await;
    assert_eq!(addresses(&stale), ["10.2.9.2:1"]);
    let took = frozen.elapsed();
    assert!(took < 20 * PING, "{took:?}");
    first.signal(Signal::CONT);
    until(&mut seen, "live after the freeze", |state| !is_stale(state)).await;

    first.signal(Signal::KILL);
    until(&mut seen, "stale after the kill", is_stale).await;
    let (mut second, _) = GoPeer::server(address).await;
    tell_hosts(&mut second, hosts).await;
    until(&mut seen, "live at the next server", &live).await;
}

#[tokio::test]
#[ignore = "needs cluster's peer in Go: cargo xtask test --backend cluster"]
async fn a_registration_is_renewed_at_a_server_that_comes_back() {
    let (mut first, address) = server().await;
    let registry = connect(config(&[address])).unwrap();
    let _guard = register(&registry).await.unwrap();
    first.received("MODULE:READY").await;
    first.say(json!({"command": "close"})).await;
    first.received("MODULE:READY").await;
    first.signal(Signal::KILL);
    let (mut second, _) = GoPeer::server(address).await;
    second.received("MODULE:READY").await;
}

#[tokio::test]
#[ignore = "needs cluster's peer in Go: cargo xtask test --backend cluster"]
async fn four_mebibytes_arrive_one_byte_more_ends_the_session_and_what_is_no_text_is_refused_alone()
{
    const MOST: usize = 4 * 1024 * 1024;
    let (mut server, address) = server().await;
    let configs = json!([{"name": "CONFIG:SEND_CONFIG_WHEN_CONNECTED", "data": "{}"}]);
    answer(&mut server, "MODULE:SEND_CONFIG_SCHEMA", configs, "ok").await;
    let (remote, mut told) = receiver();
    let registry = connect(config(&[address]).with_remote_config(remote)).unwrap();
    let module = module(&registry).unwrap();
    timeout(LONG, module.ready()).await.unwrap().unwrap();
    assert_eq!(next(&mut told).await, json!({}));
    let changed = "CONFIG:SEND_CONFIG_CHANGED";
    let sized = |bytes: usize| {
        let around = format!("{changed}||0||{{\"x\":\"\"}}").len();
        format!("{{\"x\":\"{}\"}}", "y".repeat(bytes - around))
    };
    // Bytes that are no text: the receiver gets nothing, and the session stays.
    server
        .say(json!({"command": "send", "name": changed, "base64": "eyJ4Ijoi//4ifQ=="}))
        .await;
    send(&mut server, changed, "{").await;
    send(&mut server, changed, &sized(MOST)).await;
    let large = next(&mut told).await;
    assert_eq!(
        large["x"].as_str().unwrap().len(),
        sized(MOST).len() - r#"{"x":""}"#.len()
    );
    server.next("connected").await;
    send(&mut server, changed, &sized(MOST + 1)).await;
    let ended = server.next("disconnected").await;
    let error = ended["error"].as_str().unwrap();
    assert!(
        error.contains("StatusMessageTooBig") && error.contains("4194305"),
        "{error}"
    );
    // The next session begins by itself.
    server.next("connected").await;
}
