//! Against a real Consul: what one `sdctl` registers, another sees; who leads, and who is next; a token from the environment.

use std::time::Duration;

use rustix::process::Signal;
use sd_core::testing::{ConsulProgram, ConsulServer, required_env};
use sd_core::{BootClock, Clock, Incarnation, Moment};
use serde_json::{Value, json};

use crate::beating::Beating;
use crate::running::{Running, command, failure, sdctl, sdctl_json};

const ELECTION: &str = "reports/nightly";
/// Twice the shortest time-to-live that Consul grants, the lock-delay of [`registry`], and slack for a busy machine.
const REPLACED_WITHIN: Duration = Duration::from_secs(2 * 10 + 1 + 6);

fn url(server: &str) -> String {
    server.replacen("http://", "consul://", 1)
}

/// The shared server, with elections of one's own.
fn registry() -> String {
    let server = url(&required_env("SD_TEST_CONSUL").unwrap());
    let corner = Incarnation::random();
    format!("{server}?election_prefix=sdctl-{corner}&lock_delay=1s")
}

/// A service that no other test uses.
fn service() -> String {
    format!("sdctl-{}", Incarnation::random())
}

fn ids(state: &Value) -> Vec<&str> {
    let instances = state["instances"].as_array().unwrap();
    let ids = instances.iter().map(|one| one["id"].as_str().unwrap());
    ids.collect()
}

fn is(event: &'static str) -> impl Fn(&Value) -> bool {
    move |told| told["event"] == event
}

fn time(told: &Value) -> Moment {
    let nanos = told["t_boottime_ns"].as_u64().unwrap();
    Moment::from_start(Duration::from_nanos(nanos))
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_registration_is_seen_by_others_until_it_is_told_to_stop() {
    let (registry, service) = (registry(), service());
    let mut watch = Running::start(&registry, &["watch", &service, "--json"]);
    let empty = watch.json_where(|state| state["status"] == "live").await;
    assert_eq!(ids(&empty), [""; 0]);

    let arguments = format!(
        "register {service} 10.0.0.7:50051 --id g-1 --meta k=v --tag blue --zone a --version 1.2 --weight 3 --priority 4 --ttl 5s \
         --json"
    );
    let arguments: Vec<_> = arguments.split_whitespace().collect();
    let mut register = Running::start(&registry, &arguments);
    let registered = register.json_where(|_| true).await;
    assert_eq!(registered["event"], "registered");
    assert_eq!(registered["ttl_seconds"], 5.0);

    let seen = watch.json_where(|state| ids(state) == ["g-1"]).await;
    let listed = sdctl_json(&registry, &["list", &service, "--json"]).await;
    assert_eq!(seen["instances"], listed["instances"]);
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
    let services = sdctl_json(&registry, &["services", "--json"]).await;
    let services = services["services"].as_array().unwrap();
    assert!(services.contains(&service.as_str().into()), "{services:?}");

    register.signal(Signal::TERM);
    let (status, events, stderr) = register.end().await;
    assert!(status.success(), "{stderr}");
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["event"], "withdrawn");
    watch.json_where(|state| ids(state).is_empty()).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_token_comes_from_the_environment_when_the_url_says_so_and_not_otherwise() {
    const MANAGEMENT: &str = "11111111-2222-4333-8444-555555555555";
    let program = ConsulProgram::from_env().unwrap().with_acl(MANAGEMENT);
    let without = url(&program.url());
    let asking = format!("{without}?token_env=CONSUL_HTTP_TOKEN");
    let _server = ConsulServer::launch(program).await.unwrap();
    let list = ["services", "--json"];
    let run = async |registry: &str, token: &str| {
        let mut command = command(registry, &list);
        let output = command.env("CONSUL_HTTP_TOKEN", token).output();
        output.await.unwrap()
    };
    let shown = run(&asking, MANAGEMENT).await;
    assert!(shown.status.success(), "{shown:?}");
    let told: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(told, json!({"services": ["consul"]}));

    let denied = failure(&run(&without, MANAGEMENT).await);
    assert!(denied.contains("denied"), "{denied}");
    let unset = failure(&sdctl(&format!("{without}?token_env=SDCTL_NOT_SET"), &list).await);
    assert!(unset.contains("SDCTL_NOT_SET"), "{unset}");
    // Nor is one repeated that Consul does not know.
    let unknown = "99999999-0000-4000-8000-000000000000";
    let refused = failure(&run(&asking, unknown).await);
    assert!(
        refused.contains("denied") && !refused.contains(unknown),
        "{refused}"
    );
}

fn elect(registry: &str, value: &str, beating: &Beating) -> Running {
    let elect = [
        "elect", ELECTION, "--value", value, "--ttl", "10s", "--json", "--",
    ];
    Running::start(registry, &beating.after(&elect))
}

/// Consul has no shorter time-to-live and takes twice as long: all the more must the command be dead by then.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn the_command_of_a_leader_that_is_killed_is_dead_before_the_next_one_leads() {
    let registry = registry();
    let [first_beating, second_beating] = [Beating::stubborn(), Beating::docile()];
    let mut first = elect(&registry, "first", &first_beating);
    let first_elected = first.json_where(is("elected")).await;
    let mut second = elect(&registry, "second", &second_beating);
    second.json_where(is("waiting")).await;
    let run = first_beating.run(1).await;
    let leader = sdctl_json(&registry, &["leader", ELECTION, "--json"]).await;
    assert_eq!(leader["leader"]["value"], "first", "{leader}");

    let now = BootClock.now();
    first.signal(Signal::KILL);
    let elected = second.json_where(is("elected")).await;
    let took = time(&elected).since(now);
    assert!(took < REPLACED_WITHIN, "{took:?}");
    assert!(elected["token"].as_u64() > first_elected["token"].as_u64());
    assert!(first_beating.last_sign() < time(&elected), "{elected}");
    run.is_over().await;

    // And one that is asked to stop is replaced at once.
    let third_beating = Beating::docile();
    let mut third = elect(&registry, "third", &third_beating);
    third.json_where(is("waiting")).await;
    second_beating.run(1).await;
    let now = BootClock.now();
    second.signal(Signal::TERM);
    let elected = third.json_where(is("elected")).await;
    assert!(second_beating.last_sign() < time(&elected));
    assert!(
        time(&elected).since(now) < Duration::from_secs(5),
        "{elected}"
    );
}
