//! The client of the agent beside our agent, in this process and as a program that is killed and restarted.

use std::time::Duration;

use sd_core::{Instance, Subscription};
use sd_sidecar::agent::{
    Agent, AgentConfig, App, Dialect, EventKind, Service, ServiceNode, ServiceOptions, Status,
};
use sd_sidecar::daemon::lifecycle::Lifecycle;
use sd_testing::LONG;
use tokio::time::timeout;

use crate::common::TestAgent;

fn node() -> ServiceNode {
    let options = ServiceOptions {
        app: App {
            id: "a-1".into(),
            env: "prod".into(),
            name: "auth-app".into(),
            version: "v1.2.0".into(),
            ..App::default()
        },
        service: Service {
            name: "auth".into(),
            ..Service::default()
        },
        protocol: "grpc".into(),
        server_port: 9090,
        ..ServiceOptions::default()
    };
    ServiceNode::new(options, ["/acme.auth.v1.AuthService/Login".to_owned()])
}

fn config(url: &str) -> AgentConfig {
    AgentConfig::new(url)
        .with_request_timeout(LONG)
        .with_reconnect_interval(Duration::from_millis(20))
        .with_grace_period(Duration::from_millis(300))
        .with_deregister_within(LONG)
}

async fn status(agent: &Agent, wanted: impl FnMut(&Status) -> bool) -> Status {
    let mut changes = agent.status_changes();
    let status = timeout(LONG, changes.wait_for(wanted)).await;
    status
        .unwrap_or_else(|_| panic!("{:?}", agent.status()))
        .unwrap()
        .clone()
}

/// Waits until readers see only this of the service.
async fn seen(reader: &mut Subscription, wanted: impl Fn(&Instance) -> bool) -> Instance {
    let waiting = async {
        loop {
            if let [instance] = reader.state().snapshot().instances()
                && wanted(instance)
            {
                return Instance::clone(instance);
            }
            reader.changed().await.unwrap();
        }
    };
    let found = timeout(LONG, waiting).await;
    found.unwrap_or_else(|_| panic!("{:?}", reader.state()))
}

#[tokio::test]
async fn a_process_is_registered_drained_and_deregistered_in_every_dialect() {
    for dialect in [
        Dialect::G1,
        Dialect::G2,
        Dialect::G3,
        Dialect::G4,
        Dialect::Union,
    ] {
        let daemon = TestAgent::start().await;
        let mut reader = daemon.registry.subscribe("auth").unwrap();
        let url = format!("http://{}", daemon.address);
        let agent = Agent::new(node(), config(&url).with_dialect(dialect)).unwrap();
        agent.start();
        status(&agent, |status| status.registered).await;
        let instance = seen(&mut reader, Instance::is_ready).await;
        assert_eq!(instance.endpoint().to_string(), "10.0.0.7:9090");
        assert_eq!(instance.version(), Some("v1.2.0"));
        assert_eq!(
            instance.metadata()["methods"],
            "/acme.auth.v1.AuthService/Login"
        );

        // Readers hear of the drain while the grace period passes.
        let drained = async { seen(&mut reader, |instance| !instance.is_ready()).await };
        let (left, _) = tokio::join!(agent.run(async {}), drained);
        left.unwrap();
        let listed = daemon.registry.list("auth").await.unwrap();
        assert!(listed.is_empty(), "{dialect:?}: {listed:?}");
    }
}

#[tokio::test]
async fn readiness_and_methods_change_at_run_time_without_a_gap() {
    let daemon = TestAgent::start().await;
    let mut reader = daemon.registry.subscribe("auth").unwrap();
    let agent = Agent::new(node(), config(&format!("http://{}", daemon.address))).unwrap();
    agent.start();
    let first = seen(&mut reader, Instance::is_ready).await;
    agent.service().set_ready(false).unwrap();
    let unready = seen(&mut reader, |instance| !instance.is_ready()).await;
    assert_eq!(unready.incarnation(), first.incarnation(), "the same run");
    agent.service().set_ready(true).unwrap();
    seen(&mut reader, Instance::is_ready).await;

    let with_logout = |mut node: ServiceNode| {
        node.methods
            .push("/acme.auth.v1.AuthService/Logout".to_owned());
        node
    };
    agent.service().update(with_logout).unwrap();
    let has_logout = |instance: &Instance| instance.metadata()["methods"].ends_with("/Logout");
    seen(&mut reader, has_logout).await;
    agent.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_agent_tells_how_it_is_and_is_told_everything_again_once_it_is_well() {
    let daemon = TestAgent::start().await;
    let agent = Agent::new(node(), config(&format!("http://{}", daemon.address))).unwrap();
    let mut events = agent.events();
    agent.start();
    let mut next = async || {
        let event = timeout(LONG, events.next()).await.expect("an event");
        event.expect("events go on")
    };
    let connected = next().await;
    assert_eq!(
        (connected.kind, connected.ready),
        (EventKind::Connected, Some(true))
    );
    assert_eq!(connected.service, "sidecar-agent");
    assert_eq!(
        (
            connected.event_id.as_str(),
            connected.generated_at.is_some()
        ),
        ("1", true)
    );
    status(&agent, |status| status.register_replay_count == 1).await;

    let reasons = ["the registry does not answer".to_owned()].into();
    daemon.lifecycle.send_replace(Lifecycle::Degraded(reasons));
    let degraded = next().await;
    assert_eq!(
        (degraded.kind, degraded.status.as_str()),
        (EventKind::Degraded, "degraded")
    );
    assert_eq!(degraded.message, "the registry does not answer");
    assert!(agent.status().registered);
    daemon.lifecycle.send_replace(Lifecycle::Running);
    assert_eq!(next().await.kind, EventKind::Resync);
    status(&agent, |status| {
        status.register_replay_count == 2 && status.registered
    })
    .await;

    // It ends its streams when it stops, and says so in a way that older clients drop.
    daemon.lifecycle.send_replace(Lifecycle::Stopping);
    let ended = next().await;
    assert_eq!(ended.kind, EventKind::Disconnected);
    assert_eq!(ended.error.unwrap().kind(), "watch_stream_closed");
}

/// A real agent is killed, and another one is started in its place.
#[cfg(target_os = "linux")]
mod program {
    use serde_json::json;

    use super::*;
    use crate::common::program::AgentProcess;

    /// What the agent says that is registered.
    async fn registered(agent: &AgentProcess) -> serde_json::Value {
        let services = agent.client().get("/debug/services").await;
        let services = services.json();
        let one =
            |service: &serde_json::Value| json!([service["request"]["name"], service["state"]]);
        services.as_array().unwrap().iter().map(one).collect()
    }

    #[tokio::test]
    async fn a_process_is_registered_at_the_agent_that_follows_one_that_was_killed() {
        let first = AgentProcess::start(&[""; 0]).await;
        let address = first.address().to_string();
        let agent = Agent::new(node(), config(&format!("http://{address}"))).unwrap();
        agent.start();
        status(&agent, |status| status.registered).await;
        assert_eq!(registered(&first).await, json!([["auth", "Serving"]]));
        first.kill().await;
        status(&agent, |status| {
            !status.connected && status.disconnect_count > 0
        })
        .await;

        let second = AgentProcess::start(&["--listen", &address]).await;
        status(&agent, |status| status.registered).await;
        assert_eq!(registered(&second).await, json!([["auth", "Serving"]]));
        agent.run(async {}).await.unwrap();
        assert_eq!(registered(&second).await, json!([["auth", "Deregistered"]]));
        second.stop().await;
    }

    /// The stream of an agent that hangs stays open, and says nothing.
    #[tokio::test]
    async fn an_agent_that_is_frozen_counts_as_lost_until_it_goes_on() {
        use rustix::process::Signal;
        let frozen = AgentProcess::start(&[""; 0]).await;
        let config = config(&format!("http://{}", frozen.address()))
            .with_request_timeout(Duration::from_secs(2))
            .with_silence(Duration::from_secs(8));
        let agent = Agent::new(node(), config).unwrap();
        agent.start();
        status(&agent, |status| status.registered).await;
        frozen.signal(Signal::STOP);
        let lost = status(&agent, |status| !status.connected).await;
        assert_eq!(lost.last_error_kind, "watch_stream_silent", "{lost:?}");
        frozen.signal(Signal::CONT);
        status(&agent, |status| status.registered).await;
        agent.shutdown().await.unwrap();
        frozen.stop().await;
    }
}
