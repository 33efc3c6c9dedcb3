//! An etcd that is not there, or says nothing, or cannot be meant.

use std::time::Duration;

use rustix::process::Signal;
use sd_testing::free_port;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::running::{Running, failure, sdctl};

/// The user who pressed Ctrl-C waits for it. Twice what is promised, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(4);

/// A server that is not there, and one that accepts connections and says nothing.
async fn dead_registries() -> (Vec<String>, TcpListener) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ports = [free_port().unwrap(), silent.local_addr().unwrap().port()];
    let urls = ports.map(|port| format!("etcd://u:sesame@127.0.0.1:{port}/services"));
    (urls.into(), silent)
}

#[tokio::test]
async fn a_dead_registry_is_named_within_the_time_to_wait_without_its_password() {
    let (registries, _silent) = dead_registries().await;
    for registry in registries {
        let asked = Instant::now();
        let output = sdctl(&registry, &["list", "greeter", "--timeout", "1s"]).await;
        assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
        let line = failure(&output);
        for part in ["list \"greeter\"", "@127.0.0.1:", "try: "] {
            assert!(line.contains(part), "{line}");
        }
        assert!(!line.contains("sesame"), "{line}");
    }
}

#[tokio::test]
async fn a_watch_of_a_dead_registry_says_why_it_knows_nothing_and_goes_on() {
    let (registries, _silent) = dead_registries().await;
    for registry in registries {
        let mut watch = Running::start(&registry, &["watch", "greeter", "--json"]);
        let state = watch.json_where(|_| true).await;
        assert_eq!(state["status"], "initializing");
        assert!(state["error"].is_string() && state["since"].is_string());
        assert!(state["time"].is_string());
        assert_eq!(state["instances"], serde_json::json!([]));
        // It says so once, and lives until it is told to stop.
        watch.signal(Signal::TERM);
        let (status, repeated, _) = watch.end().await;
        assert_eq!(status.code(), None);
        assert_eq!(repeated, [""; 0]);
    }
}

#[tokio::test]
async fn who_waits_for_a_service_of_a_dead_registry_learns_each_reason_once() {
    let (registries, _silent) = dead_registries().await;
    for registry in registries {
        let output = sdctl(&registry, &["wait-for", "greeter", "--timeout", "1s"]).await;
        // Too few instances would be 5.
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<_> = stderr.lines().collect();
        let last = lines.last().unwrap();
        assert!(last.contains("cannot wait for \"greeter\""), "{stderr}");
        let mut pairs = lines.iter().zip(lines.iter().skip(1));
        assert!(pairs.all(|(one, next)| one != next), "{stderr}");
        assert!(!stderr.contains("sesame"), "{stderr}");
    }
}

#[tokio::test]
async fn ctrl_c_ends_a_registration_that_waits_for_a_dead_registry() {
    let (registries, _silent) = dead_registries().await;
    for registry in registries {
        let register = ["register", "greeter", "10.0.0.7:50051", "--json"];
        let mut register = Running::start(&registry, &register);
        let retrying = register.json_where(|_| true).await;
        assert_eq!(retrying["event"], "retrying");
        assert!(retrying["error"].is_string() && retrying["retry_in_seconds"].is_number());
        register.signal(Signal::INT);
        let asked = Instant::now();
        let (status, _, stderr) = register.end().await;
        assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
        // The registry did not confirm that nothing is there.
        assert!(!status.success());
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains("withdraw"), "{stderr}");
    }
}

#[tokio::test]
async fn what_an_etcd_url_cannot_hold_is_refused_before_anything_is_sent() {
    for (registry, hint) in [
        ("etcd://127.0.0.1/?tttl=1s", "tttl"),
        ("etcd://127.0.0.1/?ca=/nonexistent/ca.pem", "/nonexistent"),
        ("etcd:///services", "host"),
    ] {
        let line = failure(&sdctl(registry, &["watch", "greeter"]).await);
        assert!(line.contains(hint), "{registry}: {line}");
    }
}
