//! Against a real etcd: what a registration leaves behind, and what it does not.

use std::fs::OpenOptions;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use crate::etcd::registry;
use crate::registering::ids;
use crate::running::{Running, command, ended, failure, sdctl, send};

/// GNU `timeout` signals its command, and then the command's group: each of them is told twice.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn what_timeout_ends_leaves_no_record() {
    let registry = registry();
    let mut all = Vec::new();
    for number in 0..12 {
        let id = format!("g-{number}");
        let arguments = [
            "register",
            "greeter",
            "10.0.0.7:50051",
            "--id",
            &id,
            "--json",
        ];
        let timeout = ["timeout", "3"];
        all.push(Running::start_by(&timeout, &registry, &arguments));
    }
    for running in &mut all {
        running
            .json_where(|event| event["event"] == "registered")
            .await;
    }
    for running in all {
        let (_, told, stderr) = running.end().await;
        assert!(told.last().unwrap().contains("withdrawn"), "{told:?}");
        assert_eq!(stderr, "");
    }
    let left = sdctl(&registry, &["list", "greeter"]).await;
    assert_eq!(left.status.code(), Some(5), "{left:?}");
}

/// As on a busy machine, where a process does not run for a while between two signals that were sent at once.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_second_signal_that_is_told_late_leaves_no_record_either() {
    let registry = registry();
    for number in 0..4 {
        let id = format!("g-{number}");
        let register = ["register", "greeter", "10.0.0.7:50051", "--id", &id];
        let mut register = Running::start(&registry, &register);
        register.line().await.unwrap();
        register.signal(Signal::TERM);
        sleep(Duration::from_millis(2)).await;
        register.signal(Signal::STOP);
        register.signal(Signal::TERM);
        sleep(Duration::from_millis(300)).await;
        register.signal(Signal::CONT);
        let (status, _, stderr) = register.end().await;
        assert!(status.success(), "{stderr}");
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_registration_whose_log_is_on_a_full_disk_is_kept_and_withdrawn() {
    let registry = registry();
    let mut watch = Running::start(&registry, &["watch", "greeter", "--json"]);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let register = [
        "register",
        "greeter",
        "10.0.0.7:50051",
        "--id",
        "g-1",
        "--ttl",
        "2s",
    ];
    let mut register = command(&registry, &register)
        .stdout(full)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    watch.json_where(|state| ids(state) == ["g-1"]).await;
    send(&register, Signal::TERM);
    assert!(ended(&mut register).await.success());
    watch.json_where(|state| ids(state).is_empty()).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn an_id_that_another_process_has_is_refused_once_and_with_its_own_status() {
    let registry = registry();
    let register = |address| ["register", "greeter", address, "--id", "g-1"];
    let mut owner = Running::start(&registry, &register("10.0.0.7:50051"));
    owner.line().await.unwrap();
    let refused = sdctl(&registry, &register("10.0.0.8:50051")).await;
    assert_eq!(refused.status.code(), Some(7));
    let line = failure(&refused);
    for part in ["10.0.0.7:50051", "--id"] {
        assert!(line.contains(part), "{line}");
    }
    let listed = sdctl(&registry, &["list", "greeter"]).await;
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("10.0.0.7:50051"), "{listed}");
}
