//! What needs no registry: mistakes, signals and pipes.

use rustix::process::Signal;
use serde_json::Value;

use crate::running::{Running, ended, failure, sdctl, sdctl_json};

const MEMORY: &str = "memory://";

#[tokio::test]
async fn a_mistake_is_answered_with_one_line_that_says_what_to_write() {
    let list = ["list", "greeter"];
    let register = |address| ["register", "greeter", address];
    let cases: &[(&str, &[&str], &str)] = &[
        ("", &list, "--registry"),
        ("127.0.0.1:2379", &list, "backend://"),
        ("consul-rs://h", &list, "no backend"),
        ("memory://?ttl=1s", &list, "no settings"),
        ("file://services.json", &list, "file:///"),
        ("file:///nonexistent/x.json", &list, "/nonexistent/x.json"),
        (
            "file:///nonexistent/x.json",
            &register("10.0.0.7:80"),
            "only be read",
        ),
        ("memory://", &["list", ""], "empty"),
        ("memory://", &["list", ".."], "folder"),
        ("memory://", &["list", "a\u{1b}[2J"], r"\u{1b}[2J"),
        ("memory://a\u{202e}b", &list, "no host"),
        ("memory://", &["lits", "a"], "sdctl --help"),
        ("memory://", &register("10.0.0.7"), "host:port"),
        ("memory://", &register("10.0.0.7:0"), "port"),
        ("memory://", &register("0.0.0.0:80"), "interface"),
        ("memory://", &register("[::]:80"), "interface"),
        (
            "memory://",
            &["register", "s", "h:1", "--ttl", "1ms"],
            "outside of",
        ),
        (
            "memory://",
            &["register", "s", "h:1", "--id", "a\nb"],
            "control",
        ),
        ("memory://", &["drain", "s", "a"], "no such instance"),
        ("memory://", &["clear", "s", ""], "empty"),
        (
            "memory://",
            &["deregister", "s", "a", "--incarnation", "x"],
            "hexadecimal",
        ),
        (
            "memory://",
            &["unready", "s", "a", "--incarnation", "2a"],
            "no record",
        ),
        (
            "file:///nonexistent/x.json",
            &["ready", "s", "a", "--incarnation", "2a"],
            "where it comes from",
        ),
    ];
    for (registry, arguments, hint) in cases {
        let line = failure(&sdctl(registry, arguments).await);
        assert!(
            line.starts_with("sdctl: ")
                && line.contains(hint)
                && !line.contains(['\u{1b}', '\u{202e}']),
            "{registry} {arguments:?}: {line}"
        );
    }
}

#[tokio::test]
async fn a_password_is_never_repeated() {
    for registry in ["etcd://u:sesame@h:x/", "nonsense://u:sesame@h/"] {
        let line = failure(&sdctl(registry, &["list", "greeter"]).await);
        assert!(!line.contains("sesame"), "{line}");
    }
}

#[tokio::test]
async fn an_empty_registry_has_no_services_and_an_unknown_service_no_instances() {
    let services = sdctl_json(MEMORY, &["services", "--json"]).await;
    assert_eq!(services, serde_json::json!({"services": [], "unlisted": 0}));
    let greeter = sdctl(MEMORY, &["list", "greeter", "--json"]).await;
    assert_eq!(greeter.status.code(), Some(5));
    let greeter: Value = serde_json::from_slice(&greeter.stdout).unwrap();
    assert_eq!(greeter["status"], "live");
    assert_eq!(greeter["instances"], serde_json::json!([]));
}

#[tokio::test]
async fn a_file_is_listed_with_what_could_not_be_read_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("services.json");
    let content =
        r#"{"services": {"greeter": [{"address": "10.0.0.7:80", "zone": "a"}, {"zone": "b"}]}}"#;
    std::fs::write(&path, content).unwrap();
    let registry = format!("file://{}", path.display());
    let greeter = sdctl_json(&registry, &["list", "greeter", "--json"]).await;
    assert_eq!(greeter["instances"][0]["address"], "10.0.0.7:80");
    assert_eq!(greeter["instances"][0]["zone"], "a");
    let reason = greeter["skipped"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("address"), "{reason}");
    let mut watch = Running::start(&registry, &["watch", "greeter", "--json"]);
    let seen = watch.json_where(|_| true).await;
    assert_eq!(seen["instances"], greeter["instances"]);
}

#[tokio::test]
async fn help_and_version_are_no_failure() {
    for argument in ["--help", "--version"] {
        let output = sdctl(MEMORY, &[argument]).await;
        assert!(output.status.success() && output.stderr.is_empty());
    }
}

#[tokio::test]
async fn both_signals_withdraw_and_end_with_success() {
    for signal in [Signal::INT, Signal::TERM] {
        let register = ["register", "greeter", "10.0.0.7:50051", "--json"];
        let mut register = Running::start(MEMORY, &register);
        let registered = register.json_where(|_| true).await;
        assert_eq!(registered["event"], "registered");
        assert_eq!(registered["address"], "10.0.0.7:50051");
        register.signal(signal);
        let withdrawn = register.json_where(|_| true).await;
        assert_eq!(withdrawn["event"], "withdrawn");
        let (status, rest, stderr) = register.end().await;
        assert!(status.success() && rest.is_empty(), "{rest:?}");
        assert_eq!(stderr, "");
    }
}

#[tokio::test]
async fn a_watch_ends_quietly_when_its_reader_has_gone() {
    let mut watch = Running::start(MEMORY, &["watch", "greeter"]);
    assert!(watch.line().await.is_some());
    // Nothing changes any more, so that nothing is written.
    let mut child = watch.stop_reading();
    assert!(ended(&mut child).await.success());
}

#[tokio::test]
async fn output_for_people_is_plain_where_there_is_no_terminal() {
    let output = sdctl(MEMORY, &["list", "greeter"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "greeter: no instances, revision 0\n");
}
