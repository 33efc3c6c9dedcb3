//! Modules of a config service, in this process.

use rustix::process::Signal;
use sd_cluster::server::ConfigService;
use sd_testing::free_port;
use serde_json::{Value, json};

use crate::running::{Running, failure, sdctl, sdctl_json};

/// A service, and the registry that it is. It stops when it is dropped.
async fn service() -> (ConfigService, String) {
    let service = ConfigService::builder().start().await.unwrap();
    let address = service
        .listen("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    (service, format!("isp://{address}/?module_name=operator"))
}

fn addresses(state: &Value) -> Vec<&str> {
    let instances = state["instances"].as_array().unwrap();
    let addresses = instances.iter().map(|one| one["address"].as_str().unwrap());
    addresses.collect()
}

#[tokio::test]
async fn a_module_that_one_sdctl_registers_others_watch_wait_for_and_list_until_it_is_told_to_stop()
{
    let (service, registry) = service().await;
    let mut watch = Running::start(&registry, &["watch", "greeter", "--json"]);
    let empty = watch.json_where(|state| state["status"] == "live").await;
    assert_eq!(addresses(&empty), [""; 0]);
    let mut waiting = Running::start(&registry, &["wait-for", "greeter", "--json"]);

    let register = ["register", "greeter", "10.0.0.7:50051", "--version", "1.2"];
    let register = [&register[..], &["--json"]].concat();
    let mut register = Running::start(&registry, &register);
    let registered = register.json_where(|_| true).await;
    assert_eq!(registered["event"], "registered", "{registered}");
    let there = |state: &Value| addresses(state) == ["10.0.0.7:50051"];
    watch.json_where(there).await;
    let awaited = waiting.json_where(|_| true).await;
    assert!(there(&awaited), "{awaited}");
    assert!(waiting.end().await.0.success());
    let listed = sdctl_json(&registry, &["list", "greeter", "--json"]).await;
    assert!(there(&listed), "{listed}");
    // By the routes there is more to see.
    let by_routes = format!("{registry}&routes=true");
    let listed = sdctl_json(&by_routes, &["list", "greeter", "--json"]).await;
    assert_eq!(listed["instances"][0]["version"], "1.2");
    assert_eq!(listed["instances"][0]["metadata"]["transport"], "grpc");
    let services = sdctl_json(&by_routes, &["services", "--json"]).await;
    assert_eq!(services["services"], json!(["greeter"]));

    register.signal(Signal::TERM);
    let (status, events, stderr) = register.end().await;
    assert!(status.success(), "{stderr}");
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["event"], "withdrawn");
    watch.json_where(|state| addresses(state).is_empty()).await;
    service.stop().await;
}

#[tokio::test]
async fn what_modules_do_not_have_is_refused_in_words_and_as_misuse() {
    let (_service, registry) = service().await;
    for (arguments, part) in [
        (&["elect", "reports"][..], "no elections"),
        (&["leader", "reports"], "no elections"),
        (&["services"], "routes"),
        (&["register", "greeter", "[::1]:50051"], "allow_ipv6"),
    ] {
        let output = sdctl(&registry, arguments).await;
        let line = failure(&output);
        assert!(line.contains(part), "{arguments:?}: {line}");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {line}");
    }
    for (registry, part) in [
        ("isp://127.0.0.1:9001", "module_name"),
        ("isp://127.0.0.1:9001/greeter?module_name=a", "path"),
        ("isp://u:sesame@127.0.0.1:9001/?module_name=a", "no login"),
    ] {
        let output = sdctl(registry, &["list", "greeter"]).await;
        let line = failure(&output);
        assert!(line.contains(part), "{registry}: {line}");
        assert!(!line.contains("sesame"), "{line}");
        assert_eq!(output.status.code(), Some(2), "{registry}: {line}");
    }
}

#[tokio::test]
async fn a_service_that_is_down_or_another_server_is_named_with_what_to_try() {
    let port = free_port().unwrap();
    let dead = format!("isp://127.0.0.1:{port}/?module_name=a");
    for arguments in [
        &["list", "greeter"][..],
        &["wait-for", "greeter", "--timeout", "1s"],
    ] {
        let output = sdctl(&dead, arguments).await;
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            stderr.contains(&port.to_string()) && stderr.contains("; try: "),
            "{stderr}"
        );
    }
}
