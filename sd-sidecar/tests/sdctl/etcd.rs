//! Against a real etcd: what one `sdctl` registers, another sees.

use sd_testing::{ServerProcess, required_env};
use serde_json::{Value, json};
use server_programs::{Etcd, LocalServer};

use crate::operating::an_instance_is_drained_marked_cleared_and_removed;
use crate::registering::{
    ids, is_seen_until_it_is_told_to_stop, runs_that_were_killed_are_not_seen_beside_the_next_one,
};
use crate::running::{Running, failure, sdctl};

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
    assert_eq!(services, json!({"services": ["greeter"]}));
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
