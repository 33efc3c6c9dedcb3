//! The end of an agent, and the next one, at a real etcd.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use rustix::process::Signal;
use sd_core::{RegistryConfig, Subscription};
use sd_testing::{LONG, ServerProcess, required_env, until};
use serde_json::json;
use server_programs::{Etcd, LocalServer};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use crate::common::HttpClient;
use crate::common::program::AgentProcess;

/// A corner of the shared etcd for one test.
fn etcd() -> String {
    let server = required_env("SD_TEST_ETCD").unwrap();
    let corner = sd_core::Incarnation::random();
    format!(
        "{}/agent-{corner}",
        server.replacen("http://", "etcd://", 1)
    )
}

fn state(folder: &TempDir) -> String {
    let path = folder.path().join("state.json");
    path.to_str().unwrap().to_owned()
}

/// Follows `service`, apart from any agent.
fn follow(registry: &str, service: &str) -> (sd_core::Registry, Subscription) {
    let registry = sd_any::connect_with(registry, RegistryConfig::default()).unwrap();
    let subscription = registry.subscribe(service).unwrap();
    (registry, subscription)
}

fn declare(service: &str, id: &str) -> serde_json::Value {
    json!({"service": service, "id": id, "address": "127.0.0.1:50051", "ttl": TTL})
}

/// Long enough for the next agent to start on a busy machine.
const TTL: &str = "5s";
/// A record that is not renewed is gone after this, as etcd ends leases only now and then.
const GONE_AFTER: Duration = Duration::from_secs(7);

/// Fails as soon as a reader sees no instance, or another one than `incarnation`.
async fn sees_no_gap(mut subscription: Subscription, incarnation: sd_core::Incarnation) {
    loop {
        let state = subscription.changed().await.unwrap();
        let instances = state.snapshot().instances();
        assert_eq!(instances.len(), 1, "{state:?}");
        assert_eq!(instances[0].incarnation(), incarnation);
        assert!(state.snapshot().held().is_empty(), "{state:?}");
    }
}

/// The reference system's agent waits for its streams when it stops, and then does not deregister: its defect S1, its case V7.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn at_a_stop_streams_end_first_and_then_everything_is_deregistered() {
    let registry = etcd();
    let agent = AgentProcess::start(&["--registry", &registry, "--drain", "500ms"]).await;
    let client = agent.client();
    client
        .post("/v1/registrations", &declare("greeter", "g-1"))
        .await
        .expect(200);
    let (_reading, mut seen) = follow(&registry, "greeter");
    until(&mut seen, "registered", |state| state.snapshot().len() == 1).await;
    let mut watch = client.events("/watch").await;
    watch.event_named("connected").await;
    let mut events = client.events("/v1/services/greeter/events").await;
    events.next().await.unwrap();

    let begin = Instant::now();
    agent.signal(Signal::TERM);
    watch.event_named("disconnected").await;
    while watch.next().await.is_some() {}
    while events.next().await.is_some() {}
    let unready = |state: &sd_core::State| {
        state.snapshot().len() == 1 && !state.snapshot().instances()[0].is_ready()
    };
    until(&mut seen, "drained", unready).await;
    until(&mut seen, "gone", |state| state.snapshot().is_empty()).await;
    let (status, log) = agent.end().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    let place = |part: &str| log.iter().position(|line| line.contains(part)).unwrap();
    assert!(
        place("connections have ended") < place("registrations have ended"),
        "{log:#?}"
    );
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn an_agent_that_is_killed_is_followed_by_one_that_goes_on_without_a_gap() {
    let (registry, folder) = (etcd(), tempfile::tempdir().unwrap());
    let arguments = ["--registry", &registry, "--state", &state(&folder)];
    let agent = AgentProcess::start(&arguments).await;
    agent
        .client()
        .post("/v1/registrations", &declare("greeter", "g-1"))
        .await
        .expect(200);
    let (_reading, mut seen) = follow(&registry, "greeter");
    let one = |state: &sd_core::State| state.snapshot().len() == 1;
    let before = until(&mut seen, "registered", one).await;
    let incarnation = before.snapshot().instances()[0].incarnation();
    let watching = tokio::spawn(sees_no_gap(seen, incarnation));

    agent.kill().await;
    let over = Instant::now();
    let agent = AgentProcess::start(&arguments).await;
    let held = agent
        .client()
        .get("/v1/registrations/greeter/g-1")
        .await
        .expect(200);
    assert_eq!(held["incarnation"], incarnation.to_string());
    // For longer than the record would have lived without the second agent.
    tokio::time::sleep_until(over + GONE_AFTER).await;
    assert!(!watching.is_finished(), "{:?}", watching.await);
    watching.abort();
    let (status, log) = agent.stop().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
}

/// What the smallest database of a test may grow to, in bytes.
const QUOTA: usize = 16 << 20;

/// Writes until the server takes no value any more.
async fn fill(server: &ServerProcess<Etcd>) {
    // The server's API in JSON.
    let client = HttpClient::new(server.program().address());
    let value = BASE64_STANDARD.encode(vec![0; QUOTA / 32]);
    for n in 0..64 {
        let key = BASE64_STANDARD.encode(format!("/filling/{n}"));
        let put = json!({"key": key, "value": value});
        let put = client.post("/v3/kv/put", &put).await;
        if put.status != 200 {
            let why = String::from_utf8_lossy(&put.body).into_owned();
            assert!(why.contains("space exceeded"), "{why}");
            return;
        }
    }
    panic!("the server takes more than its quota");
}

/// It grants no lease then, and takes no record.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn an_agent_that_is_killed_while_etcd_is_full_is_followed_by_one_that_goes_on() {
    let program = Etcd::from_env().unwrap();
    let program = program.with_args([format!("--quota-backend-bytes={QUOTA}")]);
    let registry = program.url().replacen("http://", "etcd://", 1) + "/services";
    let server = ServerProcess::launch(program).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--registry", &registry, "--state", &state(&folder)];
    let agent = AgentProcess::start(&arguments).await;
    let declared = declare("greeter", "g-1");
    agent
        .client()
        .post("/v1/registrations", &declared)
        .await
        .expect(200);
    let (_reading, mut seen) = follow(&registry, "greeter");
    let one = |state: &sd_core::State| state.snapshot().len() == 1;
    let before = until(&mut seen, "registered", one).await;
    let incarnation = before.snapshot().instances()[0].incarnation();
    let watching = tokio::spawn(sees_no_gap(seen, incarnation));
    fill(&server).await;

    agent.kill().await;
    let over = Instant::now();
    let agent = AgentProcess::start(&arguments).await;
    let again = agent.client().post("/v1/registrations", &declared).await;
    let again = again.expect(200);
    assert_eq!(again["incarnation"], incarnation.to_string());
    assert_eq!(again["stage"], "Serving");
    tokio::time::sleep_until(over + GONE_AFTER).await;
    assert!(!watching.is_finished(), "{:?}", watching.await);
    watching.abort();
    // No value is needed for that.
    let (_reading, mut seen) = follow(&registry, "greeter");
    until(&mut seen, "there", one).await;
    let (status, log) = agent.stop().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
    let none = |state: &sd_core::State| state.snapshot().is_empty();
    until(&mut seen, "gone", none).await;
}

#[cfg(feature = "cli")]
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn an_upgrade_leaves_the_records_to_the_next_agent() {
    let (registry, folder) = (etcd(), tempfile::tempdir().unwrap());
    let socket = folder.path().join("agent.sock");
    let listen = format!("unix:{}", socket.display());
    let arguments = [
        "--registry",
        &registry,
        "--state",
        &state(&folder),
        "--listen",
        &listen,
    ];
    let agent = AgentProcess::start(&arguments).await;
    agent
        .client()
        .post("/v1/registrations", &declare("greeter", "g-1"))
        .await
        .expect(200);
    let (_reading, mut seen) = follow(&registry, "greeter");
    let one = |state: &sd_core::State| state.snapshot().len() == 1;
    let before = until(&mut seen, "registered", one).await;
    let incarnation = before.snapshot().instances()[0].incarnation();
    let watching = tokio::spawn(sees_no_gap(seen, incarnation));

    let status = sdctl(&["agent", "status", "--agent", &listen]).await;
    assert!(
        status.contains("g-1") && status.contains("Serving"),
        "{status}"
    );
    sdctl(&["agent", "stop", "--keep", "--agent", &listen]).await;
    let (status, log) = agent.end().await;
    let over = Instant::now();
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(!socket.exists());
    let agent = AgentProcess::start(&arguments).await;
    let held = agent
        .client()
        .get("/v1/registrations/greeter/g-1")
        .await
        .expect(200);
    assert_eq!(held["incarnation"], incarnation.to_string());
    tokio::time::sleep_until(over + GONE_AFTER).await;
    assert!(!watching.is_finished(), "{:?}", watching.await);
    watching.abort();
    sdctl(&["agent", "stop", "--agent", &listen]).await;
    let (status, log) = agent.end().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
}

#[cfg(feature = "cli")]
async fn sdctl(arguments: &[&str]) -> String {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_sdctl"));
    let output = timeout(LONG, command.args(arguments).output())
        .await
        .unwrap()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn it_starts_and_serves_while_the_registry_is_down_and_registers_when_it_is_back() {
    let program = Etcd::from_env().unwrap();
    let registry = program.url().replacen("http://", "etcd://", 1) + "/services";
    let mut server = ServerProcess::launch(program).await.unwrap();
    server.kill().unwrap();
    let agent = AgentProcess::start(&["--registry", &registry]).await;
    let client = agent.client();
    let registered = client
        .post("/v1/registrations", &declare("greeter", "g-1"))
        .await;
    assert_eq!(registered.expect(202)["stage"], "Init");
    agent.logged("degraded").await;
    client.get("/readyz").await.expect(503);
    server.restart().await.unwrap();
    let (_reading, mut seen) = follow(&registry, "greeter");
    until(&mut seen, "registered", |state| state.snapshot().len() == 1).await;
    agent.logged("all is well again").await;
    // Down at the stop: said so, and not waited for for ever.
    server.kill().unwrap();
    let begin = Instant::now();
    let (status, log) = agent.stop().await;
    assert_eq!(status.code(), Some(1), "{log:#?}");
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
    assert!(
        log.iter()
            .any(|line| line.contains("expires with its time-to-live")),
        "{log:#?}"
    );
}

#[tokio::test]
async fn a_second_request_to_stop_ends_it_at_once() {
    let agent = AgentProcess::start(&["--drain", "1h"]).await;
    agent
        .client()
        .post("/v1/registrations", &declare("greeter", "g-1"))
        .await
        .expect(200);
    agent.signal(Signal::TERM);
    agent.logged("connections have ended").await;
    // A second signal counts from 1 s after the first on.
    let begin = Instant::now();
    let signals = async {
        loop {
            tokio::time::sleep(Duration::from_millis(400)).await;
            agent.signal(Signal::INT);
            if agent
                .log()
                .iter()
                .any(|line| line.contains("asked to stop again"))
            {
                return;
            }
        }
    };
    timeout(LONG, signals).await.unwrap();
    let (status, _) = agent.end().await;
    assert_eq!(status.code(), Some(1));
    assert!(begin.elapsed() < Duration::from_secs(20));
}
