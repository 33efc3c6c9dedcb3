//! Against a real etcd: what one `sdctl` registers, another sees.

use rustix::process::Signal;
use sd_core::testing::{EtcdProgram, EtcdServer, required_env};
use serde_json::{Value, json};

use crate::running::{Running, sdctl, sdctl_json};

/// A corner of the shared server for one test.
fn registry() -> String {
    let server = required_env("SD_TEST_ETCD").unwrap();
    let prefix = sd_core::Incarnation::random();
    format!(
        "{}/sdctl-{prefix}",
        server.replacen("http://", "etcd://", 1)
    )
}

fn ids(state: &Value) -> Vec<&str> {
    let instances = state["instances"].as_array().unwrap();
    let ids = instances.iter().map(|one| one["id"].as_str().unwrap());
    ids.collect()
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_registration_is_seen_by_others_until_it_is_told_to_stop() {
    let registry = registry();
    let mut watch = Running::start(&registry, &["watch", "greeter", "--json"]);
    let empty = watch.json_where(|state| state["status"] == "live").await;
    assert_eq!(ids(&empty), [""; 0]);

    let arguments = "register greeter 10.0.0.7:50051 --id g-1 --meta k=v --tag blue --zone a \
                     --version 1.2 --weight 3 --priority 4 --ttl 5s --json";
    let arguments: Vec<_> = arguments.split_whitespace().collect();
    let mut register = Running::start(&registry, &arguments);
    let registered = register.json_where(|_| true).await;
    assert_eq!(registered["event"], "registered");
    assert_eq!(registered["ttl_seconds"], 5.0);

    let seen = watch.json_where(|state| ids(state) == ["g-1"]).await;
    let listed = sdctl_json(&registry, &["list", "greeter", "--json"]).await;
    assert_eq!(seen["instances"], listed["instances"]);
    let mut instance = listed["instances"][0].clone();
    assert_eq!(instance["incarnation"].take(), registered["incarnation"]);
    assert_eq!(
        instance,
        json!({
            "service": "greeter", "id": "g-1", "incarnation": null, "address": "10.0.0.7:50051",
            "ready": true, "version": "1.2", "zone": "a", "weight": 3, "priority": 4,
            "tags": ["blue"], "metadata": {"k": "v"},
        })
    );
    assert_eq!(listed["status"], "live");
    assert!(listed["revision"].as_u64() > empty["revision"].as_u64());
    let services = sdctl_json(&registry, &["services", "--json"]).await;
    assert_eq!(services, json!({"services": ["greeter"]}));

    register.signal(Signal::TERM);
    let (status, events, stderr) = register.end().await;
    assert!(status.success(), "{stderr}");
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["event"], "withdrawn");
    watch.json_where(|state| ids(state).is_empty()).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn people_see_a_header_and_aligned_rows() {
    let registry = registry();
    let register = [
        "register",
        "greeter",
        "10.0.0.7:50051",
        "--id",
        "long-identifier",
    ];
    let mut register = Running::start(&registry, &register);
    let told = register.line().await.unwrap();
    assert!(
        told.contains("registered") && told.contains("ttl 10s"),
        "{told}"
    );
    let output = sdctl(&registry, &["list", "greeter"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let [summary, header, row] = lines.as_slice() else {
        panic!("{text}");
    };
    assert!(summary.starts_with("greeter: 1 instance"), "{summary}");
    assert_eq!(header.find("ADDRESS"), row.find("10.0.0.7:50051"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_watch_keeps_the_set_while_the_registry_is_down_and_a_registration_comes_back() {
    let program = EtcdProgram::from_env().unwrap();
    let registry = program.url().replacen("http://", "etcd://", 1) + "/services";
    let mut server = EtcdServer::launch(program).await.unwrap();
    let register = "register greeter 10.0.0.7:50051 --id g-1 --json";
    let register: Vec<_> = register.split(' ').collect();
    let mut register = Running::start(&registry, &register);
    register
        .json_where(|one| one["event"] == "registered")
        .await;
    let mut watch = Running::start(&registry, &["watch", "greeter", "--json"]);
    watch.json_where(|state| ids(state) == ["g-1"]).await;

    server.kill().unwrap();
    let stale = watch.json_where(|state| state["status"] == "stale").await;
    assert_eq!(ids(&stale), ["g-1"]);
    assert!(stale["since"].is_string() && stale["error"].is_string());
    register.json_where(|one| one["event"] == "at_risk").await;

    server.restart_empty().await.unwrap();
    register
        .json_where(|one| one["event"] == "registered")
        .await;
    let live = |state: &Value| state["status"] == "live" && ids(state) == ["g-1"];
    watch.json_where(live).await;
}
