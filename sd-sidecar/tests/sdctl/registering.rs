//! What every backend must do: what one `sdctl` registers, another sees.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::running::{Running, sdctl_json};

/// The ids of the instances in a state.
pub(crate) fn ids(state: &Value) -> Vec<&str> {
    let instances = state["instances"].as_array().unwrap();
    let ids = instances.iter().map(|one| one["id"].as_str().unwrap());
    ids.collect()
}

/// Registers an instance of a service of its own, and asks the process to stop. Returns what others were told: by a watch
/// before, by a list meanwhile, and the services meanwhile.
pub(crate) async fn is_seen_until_it_is_told_to_stop(registry: &str, service: &str) -> [Value; 3] {
    let mut watch = Running::start(registry, &["watch", service, "--json"]);
    let empty = watch.json_where(|state| state["status"] == "live").await;
    assert_eq!(ids(&empty), [""; 0]);

    let arguments = format!(
        "register {service} 10.0.0.7:50051 --id g-1 --meta k=v --tag blue --zone a --version 1.2 --weight 3 --priority 4 --ttl 5s \
         --json"
    );
    let arguments: Vec<_> = arguments.split_whitespace().collect();
    let mut names = Running::start(registry, &["services", "--watch", "--json"]);
    let is_named = |state: &Value| {
        let names = state["services"].as_array().unwrap();
        names.iter().any(|name| name == service)
    };
    names.json_where(|state| state["status"] == "live").await;
    let mut register = Running::start(registry, &arguments);
    let registered = register.json_where(|_| true).await;
    assert_eq!(registered["event"], "registered");
    assert_eq!(registered["ttl_seconds"], 5.0);
    names.json_where(is_named).await;

    let seen = watch.json_where(|state| ids(state) == ["g-1"]).await;
    let listed = sdctl_json(registry, &["list", service, "--json"]).await;
    assert_eq!(seen["instances"], listed["instances"]);
    assert_eq!(listed["status"], "live");
    let mut instance = listed["instances"][0].clone();
    assert_eq!(instance["incarnation"].take(), registered["incarnation"]);
    assert_eq!(
        instance,
        json!({
            "service": service, "id": "g-1", "incarnation": null, "address": "10.0.0.7:50051",
            "ready": true, "version": "1.2", "zone": "a", "weight": 3, "priority": 4,
            "tags": ["blue"], "metadata": {"k": "v"},
        })
    );
    let services = sdctl_json(registry, &["services", "--json"]).await;

    // GNU `timeout`, for one, sends two at once.
    register.signal(Signal::TERM);
    register.signal(Signal::INT);
    let (status, events, stderr) = register.end().await;
    assert!(status.success(), "{stderr}");
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["event"], "withdrawn");
    watch.json_where(|state| ids(state).is_empty()).await;
    names.json_where(|state| !is_named(state)).await;
    [empty, listed, services]
}

/// Three runs at one address are killed one after the other, and their records outlive them. Beside the fourth one, and another
/// instance, readers see none of them.
pub(crate) async fn runs_that_were_killed_are_not_seen_beside_the_next_one(
    registry: &str,
    service: &str,
) {
    const TTL: &str = "10m";
    let start = async |address: &str| {
        let arguments = ["register", service, address, "--ttl", TTL, "--json"];
        let mut register = Running::start(registry, &arguments);
        let registered = register.json_where(|_| true).await;
        assert_eq!(registered["event"], "registered", "{registered}");
        (register, registered["id"].as_str().unwrap().to_owned())
    };
    let (_other, other) = start("10.0.0.8:50051").await;
    let mut watch = Running::start(registry, &["watch", service, "--json"]);
    let mut killed = Vec::new();
    for _ in 0..3 {
        let (run, id) = start("10.0.0.7:50051").await;
        let expected = [id.as_str(), other.as_str()];
        watch.json_where(|state| ids(state) == expected).await;
        run.signal(Signal::KILL);
        let (status, ..) = run.end().await;
        assert!(!status.success());
        killed.push(id);
    }
    let (_run, id) = start("10.0.0.7:50051").await;
    let expected = [id.as_str(), other.as_str()];
    let seen = watch.json_where(|state| ids(state) == expected).await;
    let listed = sdctl_json(registry, &["list", service, "--json"]).await;
    assert_eq!(seen["instances"], listed["instances"]);
    assert!(!killed.contains(&id));
}
