//! What a script learns of how a command ended.

use sd_testing::free_port;
use serde_json::json;

use crate::running::{failure, sdctl, sdctl_json};

const MEMORY: &str = "memory://";

#[tokio::test]
async fn each_way_to_fail_has_its_own_status() {
    let dead = format!("etcd://127.0.0.1:{}/services", free_port().unwrap());
    for (registry, arguments, status) in [
        (MEMORY, "services", 0),
        (MEMORY, "services --nonsense", 2),
        (MEMORY, "drain s g-1 --incarnation zz", 2),
        (MEMORY, "register s 10.0.0.7", 2),
        (MEMORY, "register s h:1 --ttl 1ms", 2),
        (MEMORY, "elect /", 2),
        ("nonsense://h", "services", 2),
        ("", "services", 2),
        ("file:///nonexistent/x.json", "elect a", 2),
        (&dead, "services", 3),
        (&dead, "list s", 3),
        (&dead, "drain s g-1", 3),
        (&dead, "leader a", 3),
        (&dead, "wait-for s --timeout 1s", 3),
        (MEMORY, "leader a", 4),
        (MEMORY, "list s", 5),
        (MEMORY, "drain s g-1", 5),
        (MEMORY, "deregister s g-1 --incarnation 2a", 5),
        (MEMORY, "wait-for s --timeout 10ms", 5),
    ] {
        let arguments: Vec<_> = arguments.split(' ').collect();
        let output = sdctl(registry, &arguments).await;
        assert_eq!(
            output.status.code(),
            Some(status),
            "{registry} {arguments:?}: {output:?}"
        );
    }
}

#[tokio::test]
async fn a_leader_that_cannot_be_asked_for_is_told_at_once_and_why() {
    let dead = format!("etcd://127.0.0.1:{}/services", free_port().unwrap());
    let asked = tokio::time::Instant::now();
    let line = failure(&sdctl(&dead, &["leader", "a", "--timeout", "100s"]).await);
    assert!(asked.elapsed() < crate::running::LIMIT);
    assert!(
        line.contains("unavailable") && line.contains("is running"),
        "{line}"
    );
}

#[tokio::test]
async fn a_service_is_waited_for_until_enough_instances_are_ready() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("services.json");
    let services = |instances| json!({"services": {"greeter": instances}}).to_string();
    let two = json!([{"address": "10.0.0.7:80"}, {"address": "10.0.0.8:80", "ready": false}]);
    std::fs::write(&path, services(two)).unwrap();
    let registry = format!("file://{}", path.display());

    let one = sdctl_json(&registry, &["wait-for", "greeter", "--json"]).await;
    assert_eq!(one["instances"].as_array().unwrap().len(), 2);
    let few = ["wait-for", "greeter", "--count", "2", "--timeout", "100ms"];
    let few = sdctl(&registry, &few).await;
    assert_eq!(few.status.code(), Some(5));
    assert!(failure(&few).contains("1 of 2 instances"), "{few:?}");

    let mut waiting =
        crate::running::Running::start(&registry, &["-v", "wait-for", "greeter", "--count", "2"]);
    let three = json!([{"address": "10.0.0.7:80"}, {"address": "10.0.0.9:80"}]);
    std::fs::write(&path, services(three)).unwrap();
    let line = waiting.line().await.unwrap();
    assert!(line.starts_with("greeter: 2 instances"), "{line}");
    assert!(waiting.end().await.0.success());
}

#[tokio::test]
async fn the_help_has_the_table_and_examples_and_shells_and_readers_have_theirs() {
    let help = sdctl(MEMORY, &["--help"]).await;
    let help = String::from_utf8(help.stdout).unwrap();
    for part in ["Exit status:", "no leader", "Examples:", "wait-for"] {
        assert!(help.contains(part), "{help}");
    }
    let of_list = sdctl(MEMORY, &["help", "list"]).await;
    assert!(
        String::from_utf8(of_list.stdout)
            .unwrap()
            .contains("sdctl list greeter")
    );
    for (shell, part) in [
        ("bash", "complete"),
        ("zsh", "#compdef"),
        ("fish", "complete"),
    ] {
        let script = sdctl("", &["completion", shell]).await;
        assert!(script.status.success());
        let script = String::from_utf8(script.stdout).unwrap();
        assert!(
            script.contains(part) && script.contains("wait-for"),
            "{script}"
        );
    }
    let page = sdctl("", &["man"]).await;
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(
        page.contains(".TH sdctl") && page.contains("no leader"),
        "{page}"
    );
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().display().to_string();
    assert!(sdctl("", &["man", &into]).await.status.success());
    for page in ["sdctl.1", "sdctl-list.1", "sdctl-wait-for.1"] {
        assert!(folder.path().join(page).exists(), "{page}");
    }
}
