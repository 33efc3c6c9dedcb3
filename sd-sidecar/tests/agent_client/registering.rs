//! A process and its agent over real connections.

use std::time::Duration;

use sd_sidecar::agent::{Agent, AgentConfig, ServiceNode, Status};
use tokio::time::timeout;

use crate::asking::node;
use crate::fake_agent::{FakeAgent, SOON};

fn config(agent: &FakeAgent) -> AgentConfig {
    AgentConfig::new(&agent.url)
        .with_request_timeout(SOON)
        .with_reconnect_interval(Duration::from_millis(20))
        .with_silence(SOON)
}

async fn status(agent: &Agent, wanted: impl FnMut(&Status) -> bool) -> Status {
    let mut changes = agent.status_changes();
    let status = timeout(SOON, changes.wait_for(wanted)).await;
    status
        .expect("a status that is waited for")
        .unwrap()
        .clone()
}

#[tokio::test]
async fn a_process_is_registered_again_after_its_agent_was_restarted() {
    let mut fake = FakeAgent::start().await;
    let agent = Agent::new(node(), config(&fake)).unwrap();
    agent.start();
    let watch = fake.connected().await;
    assert_eq!(watch.request.headers["accept"], "text/event-stream");
    assert_eq!(watch.request.headers["accept-encoding"], "identity");
    assert_eq!(fake.request().await.path, "/register");
    status(&agent, |status| status.registered).await;
    watch.close().await;
    status(&agent, |status| {
        status.disconnect_count == 1 && !status.registered
    })
    .await;
    let _watch = fake.connected().await;
    assert_eq!(fake.request().await.path, "/register");
    status(&agent, |status| status.register_replay_count == 2).await;
}

/// The reference system's registration that fails once and is never tried again on a healthy stream (C2).
#[tokio::test]
async fn a_registration_that_is_refused_once_is_done_soon() {
    let mut fake = FakeAgent::start().await;
    let agent = Agent::new(node(), config(&fake)).unwrap();
    fake.refuse(
        "/register",
        "502 Bad Gateway",
        r#"{"success":false,"code":"register_failed"}"#,
    );
    agent.start();
    let _watch = fake.connected().await;
    fake.request().await;
    let seen = status(&agent, |status| status.registered).await;
    assert_eq!(
        (seen.register_replay_failure_count, seen.disconnect_count),
        (1, 0)
    );
    assert!(
        seen.last_error.ends_with("returned 502 (register_failed)"),
        "{}",
        seen.last_error
    );
}

#[tokio::test]
async fn a_process_leaves_its_agent_in_order() {
    let mut fake = FakeAgent::start().await;
    let grace = Duration::from_millis(100);
    let agent = Agent::new(node(), config(&fake).with_grace_period(grace)).unwrap();
    agent.start();
    let mut watch = fake.connected().await;
    fake.request().await;
    status(&agent, |status| status.registered).await;
    agent.run(async {}).await.unwrap();
    let (drain, deregister) = (fake.request().await, fake.request().await);
    assert_eq!(
        (drain.path.as_str(), deregister.path.as_str()),
        ("/drain", "/deregister")
    );
    assert!(
        drain.body.ends_with(r#""grace_period":"100ms"}"#),
        "{}",
        drain.body
    );
    // It is watched no more, so that nothing is registered again (C8).
    watch.gone().await;
    assert!(fake.is_left_alone(Duration::from_millis(300)).await);
}

#[tokio::test]
async fn another_url_of_the_stream_and_a_token_are_used() {
    let mut fake = FakeAgent::start().await;
    let url = format!("{}/base/stream?x=1", fake.url);
    let config = config(&fake).with_watch_url(&url).with_token("hunter2");
    let agent = Agent::new(node(), config).unwrap();
    assert!(!format!("{agent:?}").contains("hunter2"));
    agent.start();
    let watch = fake.connected().await;
    assert_eq!(watch.request.path, "/base/stream?x=1");
    assert_eq!(watch.request.headers["authorization"], "Bearer hunter2");
    assert_eq!(
        fake.request().await.headers["authorization"],
        "Bearer hunter2"
    );
}

/// The reference system's single node, which cannot change (C14).
#[tokio::test]
async fn a_changed_service_is_registered_as_it_is() {
    let mut fake = FakeAgent::start().await;
    let agent = Agent::new(node(), config(&fake)).unwrap();
    agent.start();
    let _watch = fake.connected().await;
    fake.request().await;
    status(&agent, |status| status.registered).await;
    let add_method = |node: ServiceNode| ServiceNode {
        methods: vec!["/acme.auth.v1.AuthService/Logout".to_owned()],
        ..node
    };
    agent.service().update(add_method).unwrap();
    let request = fake.request().await;
    assert_eq!(request.path, "/register");
    assert!(
        request.body.contains("/Logout") && !request.body.contains("/Login"),
        "{}",
        request.body
    );
    status(&agent, |status| status.registered).await;
}

/// An agent that takes and breaks connections in a loop is not asked in a tight one.
#[tokio::test]
async fn a_listener_that_closes_at_once_is_not_hurried() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let config = AgentConfig::new(&url).with_reconnect_interval(Duration::from_millis(100));
    let agent = Agent::new(node(), config).unwrap();
    agent.start();
    let mut connections = 0;
    let _ = timeout(Duration::from_secs(2), async {
        while listener.accept().await.is_ok() {
            connections += 1;
        }
    })
    .await;
    assert!((1..=20).contains(&connections), "{connections}");
    assert!(agent.status().disconnect_count >= 1);
}
