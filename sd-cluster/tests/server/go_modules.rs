//! isp-kit's client in Go, at our service.

use std::time::Duration;

use rustix::process::Signal;
use sd_cluster::server::{ConfigService, Variable};
use sd_testing::{Direction, Fault, LONG, TcpProxy, free_port};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::go_peer::{GoPeer, hosts};
use crate::{service, started, until, until_gone};

fn everything(required: &[&str]) -> Value {
    json!({"receive_config": true, "receive_routes": true, "requires": required})
}

/// What isp-config-service's own acceptance test asserts.
#[tokio::test]
#[ignore = "needs cluster's peer in Go: cargo xtask test --backend cluster"]
async fn a_module_sees_two_configurations_two_lists_of_hosts_and_three_of_routes() {
    let (service, address) = service().await;
    let mut first = GoPeer::module(&[address], "A", "10.2.9.1", json!({}));
    first.established().await;
    let mut second = GoPeer::module(
        &[address],
        "A",
        "10.2.9.2",
        json!({"endpoints": ["a/b"], "metrics": "a:9"}),
    );
    second.established().await;
    let mut reader = GoPeer::module(&[address], "B", "10.2.9.3", everything(&["A"]));
    reader.established().await;
    assert_eq!(reader.health().await, "");
    assert_eq!(reader.config().await, "{}");
    assert_eq!(reader.hosts("A").await, ["10.2.9.1:9999", "10.2.9.2:9999"]);

    service
        .set_config("B", r#"{"someString": "value"}"#, None)
        .await
        .unwrap();
    assert_eq!(reader.config().await, r#"{"someString": "value"}"#);
    second.leave().await;
    assert_eq!(reader.hosts("A").await, ["10.2.9.1:9999"]);
    let routes = [
        reader.next("routes").await,
        reader.next("routes").await,
        reader.next("routes").await,
    ];
    let lengths = routes.map(|told| told["routes"].as_array().unwrap().len());
    assert_eq!(lengths, [2, 3, 2]);

    let modules = service.modules().await.unwrap();
    let shown: Vec<(&str, usize)> = modules
        .iter()
        .map(|module| (&*module.name, module.instances.len()))
        .collect();
    assert_eq!(shown, [("A", 1), ("B", 1)]);
    assert_eq!(modules[1].schema.as_deref(), Some(r#"{"type":"object"}"#));
    let seen = reader.leave().await;
    let count = |kind: &str| seen.iter().filter(|event| event["event"] == kind).count();
    assert_eq!(
        (count("config"), count("hosts"), count("routes")),
        (2, 2, 3)
    );
}

#[tokio::test]
#[ignore = "needs cluster's peer in Go: cargo xtask test --backend cluster"]
async fn variables_are_put_into_the_default_of_a_module_and_their_change_reaches_it() {
    let (service, address) = service().await;
    service
        .set_variable("varA", Variable::text("va\"lue"))
        .await
        .unwrap();
    service
        .set_variable("varB", Variable::secret("123"))
        .await
        .unwrap();
    let default = json!({"a": "_Var(varA)", "b": "_ToInt(_Var(varB))", "c": "{{ .Other }}"});
    let mut module = GoPeer::module(
        &[address],
        "A",
        "10.0.0.1",
        json!({"config": default, "receive_config": true}),
    );
    let config = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let first = config(module.config().await);
    assert_eq!(
        first,
        json!({"a": "va\"lue", "b": 123, "c": "{{ .Other }}"})
    );
    module.established().await;
    assert!(service.delete_variable("varA").await.is_err());
    service
        .set_variable("varB", Variable::secret("124"))
        .await
        .unwrap();
    assert_eq!(config(module.config().await)["b"], 124);
}

#[tokio::test]
#[ignore = "needs cluster's peer in Go: cargo xtask test --backend cluster"]
async fn a_module_that_is_killed_goes_at_once_and_one_that_freezes_after_three_pings_and_comes_back()
 {
    let every = Duration::from_millis(500);
    let (_service, address) = started(ConfigService::builder().ping_every(every)).await;
    let mut reader = GoPeer::module(&[address], "B", "10.0.0.9", everything(&["A"]));
    reader.established().await;
    assert!(reader.hosts("A").await.is_empty());
    let mut killed = GoPeer::module(&[address], "A", "10.0.0.1", json!({}));
    let mut frozen = GoPeer::module(&[address], "A", "10.0.0.2", json!({}));
    killed.established().await;
    frozen.established().await;
    while reader.hosts("A").await.len() < 2 {}

    killed.signal(Signal::KILL);
    assert_eq!(reader.hosts("A").await, ["10.0.0.2:9999"]);
    let begun = Instant::now();
    frozen.signal(Signal::STOP);
    assert!(reader.hosts("A").await.is_empty());
    let took = begun.elapsed();
    assert!(took >= every && took < 20 * every, "{took:?}");
    frozen.signal(Signal::CONT);
    assert_eq!(reader.hosts("A").await, ["10.0.0.2:9999"]);
    frozen.established().await;
    // On a machine under load it may miss three pings once more.
    let begun = Instant::now();
    while !frozen.health().await.is_empty() {
        assert!(begun.elapsed() < LONG, "it does not come back");
    }
}

#[tokio::test]
#[ignore = "needs cluster's peer in Go: cargo xtask test --backend cluster"]
async fn a_module_comes_back_to_a_service_that_was_restarted_and_keeps_away_from_a_dead_one() {
    let port = free_port().unwrap();
    let dead = format!("127.0.0.1:{}", free_port().unwrap())
        .parse()
        .unwrap();
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    let service = ConfigService::builder().start().await.unwrap();
    service.listen(address).await.unwrap();
    // Two services, of which one is dead: it is tried now and then, and costs a second each time.
    let mut module = GoPeer::module(&[dead, address], "A", "10.0.0.1", everything(&["A"]));
    module.established().await;
    assert_eq!(module.config().await, "{}");
    assert!(module.hosts("A").await.is_empty());
    assert_eq!(module.hosts("A").await, ["10.0.0.1:9999"]);
    service.stop().await;
    let stopped = module.find("the end of the session", |event| {
        event["message"] == "config service session stopped"
    });
    stopped.await;

    let service = ConfigService::builder().start().await.unwrap();
    service
        .set_config("A", r#"{"after":"restart"}"#, None)
        .await
        .unwrap();
    service.listen(address).await.unwrap();
    module.established().await;
    assert_eq!(module.config().await, r#"{"after":"restart"}"#);
    until(&service, "A", |known| known.instances.len() == 1).await;
}

#[tokio::test]
#[ignore = "needs cluster's peer in Go: cargo xtask test --backend cluster"]
async fn a_link_that_is_cut_or_silent_is_replaced_and_no_instance_is_there_twice() {
    let every = Duration::from_millis(300);
    let (service, address) = started(ConfigService::builder().ping_every(every)).await;
    let proxy = TcpProxy::start(address).await.unwrap();
    let mut module = GoPeer::module(&[proxy.address()], "A", "10.0.0.1", everything(&["A"]));
    module.established().await;
    proxy.cut_connections();
    until_gone(&service, "A").await;
    until(&service, "A", |known| known.instances.len() == 1).await;
    // Half open: nothing passes, and neither end is told.
    proxy.set(Fault::Hold(Direction::Both));
    until_gone(&service, "A").await;
    proxy.set(Fault::Pass);
    proxy.cut_connections();
    let known = until(&service, "A", |known| known.instances.len() == 1).await;
    assert_eq!(known.connections, 1);
}

#[tokio::test]
#[ignore = "needs cluster's peer in Go: cargo xtask test --backend cluster"]
async fn the_largest_configuration_arrives_and_a_larger_one_is_refused_here() {
    let (service, address) = service().await;
    let mut module = GoPeer::module(&[address], "A", "10.0.0.1", json!({"receive_config": true}));
    module.established().await;
    module.config().await;
    let sized = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8));
    let most = 4 * 1024 * 1024 - 1024;
    service.set_config("A", &sized(most), None).await.unwrap();
    assert_eq!(module.config().await.len(), most);
    let refused = service
        .set_config("A", &sized(most + 1), None)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), sd_core::ErrorKind::InvalidInput);
    assert_eq!(module.health().await, "");
}

#[tokio::test]
#[ignore = "needs cluster's peer in Go: cargo xtask test --backend cluster"]
async fn a_receiver_that_refuses_a_later_configuration_keeps_its_session() {
    let (service, address) = service().await;
    let mut module = GoPeer::module(&[address], "A", "10.0.0.1", everything(&[]));
    module.established().await;
    module
        .say(json!({"command": "receive", "error": "of the test"}))
        .await;
    // The schema that the module has sent wants an object.
    let unfit = service.set_config("A", "1", None).await.unwrap_err();
    assert_eq!(unfit.kind(), sd_core::ErrorKind::InvalidInput);
    service.force_config("A", "1", None).await.unwrap();
    assert_eq!(
        module
            .find("a new config", |event| event["data"] == "1")
            .await["event"],
        "config"
    );
    // A later one is its own business: the session stays.
    assert_eq!(module.health().await, "");
    let known = service.module("A").await.unwrap();
    assert_eq!((known.connections, known.instances.len()), (1, 1));
}

#[tokio::test]
#[ignore = "needs cluster's peer in Go: cargo xtask test --backend cluster"]
async fn an_ipv6_module_harms_no_other_and_is_told_as_it_can_be_dialled() {
    let (_service, address) = service().await;
    let mut reader = GoPeer::module(&[address], "B", "10.0.0.9", everything(&["A"]));
    reader.established().await;
    assert!(reader.hosts("A").await.is_empty());
    for ip in ["fe80::1", "[fe80::2]"] {
        let mut module = GoPeer::module(&[address], "A", ip, json!({}));
        module.established().await;
        let is = |event: &Value| event["event"] == "hosts" && event["module"] == "A";
        let told = reader.find("hosts", is).await;
        let bare = ip.trim_matches(['[', ']']);
        assert_eq!(hosts(&told), [format!("[{bare}]:9999")]);
        module.leave().await;
        assert!(reader.hosts("A").await.is_empty());
    }
}

#[tokio::test]
#[ignore = "needs cluster's peer in Go: cargo xtask test --backend cluster"]
async fn a_module_to_which_answers_come_too_late_leaves_nothing_behind_and_is_there_once_they_do_not()
 {
    let (service, address) = service().await;
    let proxy = TcpProxy::start(address).await.unwrap();
    // It waits for each answer for one second.
    proxy.set(Fault::Delay(Duration::from_millis(700)));
    let mut module = GoPeer::module(&[proxy.address()], "A", "10.0.0.1", everything(&[]));
    let gives_up = |event: &Value| event["message"] == "config service session stopped";
    module.find("it gives up", gives_up).await;
    assert_ne!(module.health().await, "");
    proxy.set(Fault::Pass);
    module.established().await;
    let known = until(&service, "A", |known| known.connections == 1).await;
    assert_eq!(known.instances.len(), 1);
}

#[cfg(feature = "server-sqlite")]
#[tokio::test]
#[ignore = "needs cluster's peer in Go: cargo xtask test --backend cluster"]
async fn a_reader_that_is_back_first_after_a_restart_is_told_of_the_instances_that_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.sqlite");
    let (service, address) = started(ConfigService::builder().file(&file)).await;
    let mut module = GoPeer::module(&[address], "A", "10.0.0.1", json!({}));
    module.established().await;
    let mut reader = GoPeer::module(&[address], "B", "10.0.0.9", everything(&["A"]));
    reader.established().await;
    let there = ["10.0.0.1:9999"];
    assert_eq!(reader.hosts("A").await, there);
    // It is there again, and does not come back yet.
    module.signal(Signal::STOP);
    service.stop().await;
    drop(service);
    let service = ConfigService::builder().file(&file).start().await.unwrap();
    service.listen(address).await.unwrap();
    reader.established().await;
    assert_eq!(reader.hosts("A").await, there);
    module.signal(Signal::CONT);
    module.established().await;
    until(&service, "A", |known| known.connections == 1).await;
    module.leave().await;
    let mut told = reader.hosts("A").await;
    while !told.is_empty() {
        assert_eq!(told, there);
        told = reader.hosts("A").await;
    }
}
