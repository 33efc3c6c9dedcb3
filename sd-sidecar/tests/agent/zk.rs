//! The agent at a real ZooKeeper, whose records end with the session of the agent that made them.

use std::time::Duration;

use sd_core::{RegistryConfig, State, Subscription};
use sd_testing::{is_live_with, required_env, until};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::common::program::AgentProcess;

/// The client crate gives a connection up after two fifths of it, which a server on a busy machine may take to answer.
const SESSION: Duration = Duration::from_secs(5);

/// A corner of the shared server for one test.
fn zk() -> String {
    let server = required_env("SD_TEST_ZK").unwrap();
    let corner = sd_core::Incarnation::random();
    let seconds = SESSION.as_secs();
    format!("zk://{server}?prefix=/agent-{corner}&session_timeout={seconds}s")
}

fn follow(registry: &str) -> (sd_core::Registry, Subscription) {
    let registry = sd_any::connect_with(registry, RegistryConfig::default()).unwrap();
    let subscription = registry.subscribe("greeter").unwrap();
    (registry, subscription)
}

/// An agent with a state, and what it registered.
async fn registered(arguments: &[String]) -> (AgentProcess, Value) {
    let agent = AgentProcess::start(arguments).await;
    let greeter = json!({"service": "greeter", "id": "g-1", "address": "127.0.0.1:50051"});
    let entry = agent.client().post("/v1/registrations", &greeter).await;
    let entry = entry.expect(200);
    (agent, entry)
}

fn arguments(registry: &str, folder: &TempDir) -> [String; 2] {
    let state = folder.path().join("state.json");
    [
        format!("--registry={registry}"),
        format!("--state={}", state.display()),
    ]
}

fn incarnation(state: &State) -> String {
    state.snapshot().instances()[0].incarnation().to_string()
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn what_is_registered_at_zookeeper_is_seen_drained_and_gone_after_a_stop() {
    let (registry, folder) = (zk(), tempfile::tempdir().unwrap());
    let (agent, entry) = registered(&arguments(&registry, &folder)).await;
    assert_eq!(entry["stage"], "Serving");
    let (_reading, mut seen) = follow(&registry);
    let state = until(&mut seen, "registered", is_live_with(1)).await;
    assert_eq!(incarnation(&state), entry["incarnation"].as_str().unwrap());
    let client = agent.client();
    let (path, grace) = (
        "/v1/registrations/greeter/g-1/drain",
        json!({"grace": "1h"}),
    );
    client.post(path, &grace).await.expect(200);
    let is_unready = |state: &State| {
        let mut instances = state.snapshot().instances().iter();
        state.snapshot().len() == 1 && instances.all(|one| !one.is_ready())
    };
    until(&mut seen, "drained", is_unready).await;
    let (status, log) = agent.stop().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
    until(&mut seen, "gone", is_live_with(0)).await;
}

/// Its session outlives it for as long as the time-to-live, and the next agent takes the record into its own session meanwhile.
#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn at_zookeeper_an_agent_that_is_killed_is_followed_by_one_that_goes_on_without_a_gap() {
    let (registry, folder) = (zk(), tempfile::tempdir().unwrap());
    let (agent, entry) = registered(&arguments(&registry, &folder)).await;
    let (_reading, mut seen) = follow(&registry);
    until(&mut seen, "registered", is_live_with(1)).await;
    agent.kill().await;
    let killed = Instant::now();
    let agent = AgentProcess::start(&arguments(&registry, &folder)).await;
    // The session of the one that was killed ends meanwhile.
    let over = killed + 2 * SESSION;
    let watching = async {
        loop {
            let state = seen.changed().await.unwrap();
            assert_eq!(state.snapshot().len(), 1, "{state:?}");
            assert_eq!(incarnation(&state), entry["incarnation"].as_str().unwrap());
        }
    };
    tokio::select! {
        () = watching => {}
        () = sleep(over - Instant::now()) => {}
    }
    let held = agent.client().get("/v1/registrations/greeter/g-1").await;
    assert_eq!(held.expect(200)["stage"], "Serving");
    agent.stop().await;
}

/// No other session can own what the agent has made, so that it is withdrawn at the stop and made again at the next start.
#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn at_zookeeper_an_upgrade_has_a_gap_from_the_stop_to_the_next_start_and_no_longer() {
    let (registry, folder) = (zk(), tempfile::tempdir().unwrap());
    let mut upgraded = arguments(&registry, &folder).to_vec();
    upgraded.push("--keep-on-stop".to_owned());
    let (agent, entry) = registered(&upgraded).await;
    let (_reading, mut seen) = follow(&registry);
    until(&mut seen, "registered", is_live_with(1)).await;
    let (status, log) = agent.stop().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
    until(&mut seen, "withdrawn", is_live_with(0)).await;
    let _agent = AgentProcess::start(&arguments(&registry, &folder)).await;
    let state = until(&mut seen, "back", is_live_with(1)).await;
    assert_eq!(incarnation(&state), entry["incarnation"].as_str().unwrap());
}
