//! Against a real DNS server: names are read, and nothing else can be done with them.

use sd_testing::ServerProcess;
use serde_json::{Value, json};
use server_programs::{Knot, LocalServer};

use crate::running::{Running, failure, sdctl, sdctl_json};

/// A server whose zone has the service `greeter`, with addresses and with SRV records.
async fn server() -> ServerProcess<Knot> {
    let program = Knot::from_env()
        .unwrap()
        .with_record("greeter 1 A 10.0.0.7")
        .with_record("greeter 1 AAAA 2001:db8::7")
        .with_record("_grpc._tcp.greeter 1 SRV 2 5 8080 pod")
        .with_record("pod 1 A 10.0.0.8");
    ServerProcess::launch(program).await.unwrap()
}

fn addresses(state: &Value) -> Vec<&str> {
    let instances = state["instances"].as_array().unwrap();
    let addresses = instances.iter().map(|one| one["address"].as_str().unwrap());
    addresses.collect()
}

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn names_are_listed_and_watched() {
    let server = server().await;
    let address = server.program().address();
    let registry = format!("dns://{address}/{}?port=50051", Knot::ZONE);
    let both = ["10.0.0.7:50051", "[2001:db8::7]:50051"];
    let listed = sdctl_json(&registry, &["list", "greeter", "--json"]).await;
    assert_eq!(addresses(&listed), both);
    let mut watch = Running::start(&registry, &["watch", "greeter", "--json"]);
    watch.json_where(|state| addresses(state) == both).await;

    let registry = format!(
        "dns+srv://{address}/{}?name=_grpc._tcp.{{service}}",
        Knot::ZONE
    );
    let listed = sdctl_json(&registry, &["list", "greeter", "--json"]).await;
    let instance = &listed["instances"][0];
    assert_eq!(instance["address"], "10.0.0.8:8080");
    assert_eq!(
        (&instance["priority"], &instance["weight"]),
        (&json!(2), &json!(5))
    );
    assert_eq!(instance["metadata"], json!({"target": "pod.sd.test."}));
}

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn what_dns_cannot_do_is_said_in_words() {
    let server = server().await;
    let registry = format!("{}/{}?port=50051", server.program().url(), Knot::ZONE);
    for (arguments, told) in [
        ("services", "lists none"),
        ("register greeter 10.0.0.9:50051", "can only be read"),
        ("drain greeter 10.0.0.7:50051", "dns"),
        ("elect reports/nightly", "no elections"),
    ] {
        let arguments: Vec<_> = arguments.split(' ').collect();
        let line = failure(&sdctl(&registry, &arguments).await);
        assert!(line.contains(told), "{line}");
    }
}
