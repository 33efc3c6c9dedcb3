//! What an operator does to an instance that another `sdctl` keeps registered, over any registry.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::running::{Running, failure, sdctl, sdctl_json};

const ID: &str = "g-1";

/// Drains an instance, marks it, clears that and removes it; its owner and a watch are told each time.
pub(crate) async fn an_instance_is_drained_marked_cleared_and_removed(
    registry: &str,
    service: &str,
    has_ready: bool,
) {
    let act = async |command: &str| sdctl_json(registry, &[command, service, ID, "--json"]).await;
    let register = "10.0.0.7:50051 --id g-1 --ttl 3s --json";
    let register: Vec<_> = ["register", service]
        .into_iter()
        .chain(register.split_whitespace())
        .collect();
    let mut owner = Running::start(registry, &register);
    let registered = owner.json_where(|_| true).await;
    assert_eq!(registered["event"], "registered", "{registered}");
    let mut watch = Running::start(registry, &["watch", service, "--json"]);
    let is = |ready: bool, said: Value| {
        move |state: &Value| {
            let one = &state["instances"][0];
            one["ready"] == ready && one["override"] == said
        }
    };
    watch.json_where(is(true, Value::Null)).await;

    for (command, said) in [("drain", "draining"), ("unready", "unready")] {
        let mut done = act(command).await;
        done["time"].take();
        let expected = json!({
            "time": null, "event": "overridden", "service": service, "id": ID,
            "incarnation": registered["incarnation"], "override": said,
        });
        assert_eq!(done, expected);
        watch.json_where(is(false, said.into())).await;
        let told = owner.json_where(|event| event["override"] == said).await;
        assert_eq!(told["event"], "overridden", "{told}");
        let listed = sdctl(registry, &["list", service]).await;
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.contains(&format!("no ({said})")), "{listed}");
    }
    if has_ready {
        act("ready").await;
        watch.json_where(is(true, "ready".into())).await;
    } else {
        let line = failure(&sdctl(registry, &["ready", service, ID]).await);
        assert!(
            line.contains("not supported") || line.contains("unsupported"),
            "{line}"
        );
        assert!(line.contains("clear the override"), "{line}");
    }
    assert_eq!(act("clear").await["event"], "override_cleared");
    watch.json_where(is(true, Value::Null)).await;
    owner
        .json_where(|event| event["event"] == "override_cleared")
        .await;

    // One that is named by its run, and is another one.
    let earlier = ["deregister", service, ID, "--incarnation", "2a"];
    let refused = sdctl(registry, &earlier).await;
    assert_eq!(refused.status.code(), Some(7));
    let line = failure(&refused);
    assert!(
        line.contains("conflict") && !line.contains("--id"),
        "{line}"
    );

    act("drain").await;
    let removed = sdctl(registry, &["deregister", service, ID]).await;
    let told = String::from_utf8(removed.stdout).unwrap();
    assert!(told.contains("registers it again"), "{told}");
    // Its owner lives, and says that it is ready.
    owner.json_where(|event| event["event"] == "lost").await;
    owner
        .json_where(|event| event["event"] == "registered")
        .await;
    watch.json_where(is(true, Value::Null)).await;

    owner.signal(Signal::KILL);
    owner.end().await;
    // What it leaves behind does not come back.
    act("deregister").await;
    let gone = |state: &Value| state["instances"] == json!([]);
    watch.json_where(gone).await;
    let again = failure(&sdctl(registry, &["deregister", service, ID]).await);
    assert!(again.contains("no such instance"), "{again}");
}
