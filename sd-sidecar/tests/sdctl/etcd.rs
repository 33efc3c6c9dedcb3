//! Against a real etcd: what one `sdctl` registers, another sees.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sd_testing::{ServerProcess, required_env};
use serde_json::{Value, json};
use server_programs::{Etcd, LocalServer};

use crate::gateway::ask;
use crate::operating::an_instance_is_drained_marked_cleared_and_removed;
use crate::registering::{
    ids, is_seen_until_it_is_told_to_stop, runs_that_were_killed_are_not_seen_beside_the_next_one,
};
use crate::running::{Running, failure, sdctl, sdctl_json};

/// A corner of the shared server for one test.
pub(crate) fn registry() -> String {
    let server = required_env("SD_TEST_ETCD").unwrap();
    let prefix = sd_core::Incarnation::random();
    format!(
        "{}/sdctl-{prefix}",
        server.replacen("http://", "etcd://", 1)
    )
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_registration_is_seen_by_others_until_it_is_told_to_stop() {
    let seen = is_seen_until_it_is_told_to_stop(&registry(), "greeter").await;
    let [empty, listed, services] = seen;
    assert!(listed["revision"].as_u64() > empty["revision"].as_u64());
    assert_eq!(services, json!({"services": ["greeter"], "unlisted": 0}));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn what_lies_among_the_services_and_is_none_is_counted() {
    let program = Etcd::from_env().unwrap();
    let server = program.address();
    let registry = program.url().replacen("http://", "etcd://", 1) + "/services";
    let _server = ServerProcess::launch(program).await.unwrap();
    let put = async |key: &str| {
        let put = json!({ "key": STANDARD.encode(key), "value": STANDARD.encode("h:1") });
        ask(server, "kv/put", &put).await;
    };
    put("/services/greeter/i").await;
    let mut watch = Running::start(&registry, &["services", "--watch", "--json"]);
    let first = watch.json_where(|_| true).await;
    assert_eq!(first["unlisted"], 0);
    for key in ["/services/flat", "/services/a\nb/1", "/services/a\nb/2"] {
        put(key).await;
    }
    watch.json_where(|told| told["unlisted"] == 2).await;
    let services = sdctl_json(&registry, &["services", "--json"]).await;
    assert_eq!(services, json!({"services": ["greeter"], "unlisted": 2}));
    let services = sdctl(&registry, &["services"]).await;
    assert!(services.status.success());
    assert_eq!(services.stdout, b"greeter\n");
    let told = String::from_utf8(services.stderr).unwrap();
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains("2 entries"), "{told}");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn an_etcd_that_is_taken_for_a_consul_is_said_to_be_none() {
    let registry = required_env("SD_TEST_ETCD").unwrap();
    let registry = registry.replacen("http://", "consul://", 1);
    for arguments in [
        &["services"][..],
        &["list", "greeter"],
        &["leader", "reports/nightly"],
    ] {
        let output = sdctl(&registry, arguments).await;
        let line = failure(&output);
        assert_eq!(output.status.code(), Some(3), "{line}");
        assert!(
            line.contains("no Consul") && line.contains("2379"),
            "{line}"
        );
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn an_operator_drains_marks_clears_and_removes_an_instance() {
    an_instance_is_drained_marked_cleared_and_removed(&registry(), "greeter", true).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn an_entry_of_go_kit_is_removed_but_not_drained() {
    let registry = format!("{}?format=gokit", registry());
    let register = ["register", "greeter", "10.0.0.7:50051", "--id", "g-1"];
    let mut owner = Running::start(&registry, &register);
    owner.line().await.unwrap();
    let line = failure(&sdctl(&registry, &["drain", "greeter", "g-1"]).await);
    assert!(
        line.contains("go-kit") && line.contains("remove it"),
        "{line}"
    );
    let removed = sdctl(&registry, &["deregister", "greeter", "g-1"]).await;
    assert!(removed.status.success(), "{removed:?}");
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
    let program = Etcd::from_env().unwrap();
    let registry = program.url().replacen("http://", "etcd://", 1) + "/services";
    let mut server = ServerProcess::launch(program).await.unwrap();
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

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn three_runs_that_were_killed_are_not_seen_beside_the_next_one() {
    runs_that_were_killed_are_not_seen_beside_the_next_one(&registry(), "greeter").await;
}
