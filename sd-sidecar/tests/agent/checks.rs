//! What is checked of a registration, against real servers and processes: what readers of the registry see of it.

use std::process::Stdio;
use std::time::Duration;

use http::Method;
use sd_core::memory::Memory;
use sd_core::{Registry, State, Subscription};
use sd_sidecar::checks::Commands;
use sd_sidecar::daemon::registrations::{Caller, Registrations, Settings};
use sd_testing::LONG;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

use crate::api::{ALL, refused};
use crate::common::TestAgent;

const PATH: &str = "/v1/registrations/greeter/g-1";

fn with_checks(address: &str, checks: &Value) -> Value {
    json!({"service": "greeter", "id": "g-1", "address": address, "checks": checks})
}

/// Waits until readers see the only instance as ready or not.
async fn until_ready(readers: &mut Subscription, ready: bool) {
    let is_so = |state: &State| {
        let [only] = state.snapshot().instances() else {
            return false;
        };
        only.is_ready() == ready
    };
    let waiting = async {
        while !is_so(&readers.state_and_mark_seen()) {
            readers.changed().await.unwrap();
        }
    };
    let told = timeout(LONG, waiting).await;
    told.unwrap_or_else(|_| panic!("ready is not {ready}: {:?}", readers.state()));
}

fn readers(registry: &Registry) -> Subscription {
    registry.subscribe("greeter").unwrap()
}

#[tokio::test]
async fn an_instance_whose_port_is_closed_is_seen_as_not_ready_and_stays_registered() {
    let agent = TestAgent::start().await;
    let mut readers = readers(&agent.registry);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let checks = json!([{"kind": "tcp", "interval": "100ms"}]);
    let body = with_checks(&address.to_string(), &checks);
    let declared = agent.client().post(ALL, &body).await.expect(200);
    until_ready(&mut readers, true).await;

    drop(listener);
    until_ready(&mut readers, false).await;
    let shown = agent.client().get(PATH).await.expect(200);
    assert_eq!(shown["stage"], "Registered");
    assert_eq!(shown["incarnation"], declared["incarnation"]);
    let check = &shown["health"]["checks"][0];
    assert_eq!(
        (&check["name"], &check["state"]),
        (&"tcp".into(), &"failing".into())
    );
    let output = check["output"].as_str().unwrap();
    assert!(output.contains("refused"), "{output}");

    let _listener = TcpListener::bind(address).await.unwrap();
    until_ready(&mut readers, true).await;
    let shown = agent.client().get(PATH).await.expect(200);
    assert_eq!(shown["stage"], "Serving");
    assert_eq!(shown["incarnation"], declared["incarnation"]);
}

#[tokio::test]
async fn an_instance_is_ready_only_while_all_of_its_checks_pass() {
    let agent = TestAgent::start().await;
    let mut readers = readers(&agent.registry);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = [0; 20];
            // A check of the other kind says nothing.
            if connection.read_exact(&mut request).await.is_ok() {
                assert!(request.starts_with(b"GET /ready HTTP/1.1"));
                let _ = connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            }
        }
    });
    let checks = json!([
        {"kind": "http", "url": "/ready", "interval": "100ms"},
        {"kind": "tcp", "interval": "100ms"},
        {"kind": "ttl", "ttl": "1h", "name": "self"},
    ]);
    agent
        .client()
        .post(ALL, &with_checks(&address, &checks))
        .await
        .expect(200);
    until_ready(&mut readers, false).await;
    let beat = format!("{PATH}/beat");
    let well = json!({"check": "self", "state": "passing", "output": "warm"});
    agent.client().post(&beat, &well).await.expect(200);
    until_ready(&mut readers, true).await;
    let ill = json!({"check": "self", "state": "failing", "output": "disk full"});
    let told = agent.client().post(&beat, &ill).await.expect(200);
    assert_eq!(told["health"]["checks"][2]["output"], "disk full");
    until_ready(&mut readers, false).await;
    let unknown = json!({"check": "tcp"});
    let unknown = agent.client().post(&beat, &unknown).await;
    refused(&unknown, 404, "not_found");
    server.abort();
}

#[tokio::test]
async fn a_process_that_falls_silent_is_seen_as_not_ready() {
    let agent = TestAgent::start().await;
    let mut readers = readers(&agent.registry);
    let checks = json!([{"kind": "ttl", "ttl": "500ms"}]);
    let body = with_checks("10.0.0.7:80", &checks);
    agent.client().post(ALL, &body).await.expect(200);
    let beat = format!("{PATH}/beat");
    agent.client().post(&beat, &json!({})).await.expect(200);
    until_ready(&mut readers, true).await;
    until_ready(&mut readers, false).await;
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_process_that_is_killed_is_seen_as_not_ready_before_it_is_withdrawn() {
    let agent = TestAgent::start().await;
    let mut readers = readers(&agent.registry);
    let mut process = Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let checks = json!([{"kind": "pid", "pid": process.id().unwrap()}]);
    let body = with_checks("10.0.0.7:80", &checks);
    agent.client().post(ALL, &body).await.expect(200);
    until_ready(&mut readers, true).await;
    process.kill().await.unwrap();
    until_ready(&mut readers, false).await;
    // The same declaration is a replay, and brings no process back.
    let replayed = agent.client().post(ALL, &body).await.expect(200);
    assert_eq!(replayed["stage"], "Registered");
    let output = replayed["health"]["checks"][0]["output"].as_str().unwrap();
    assert!(output.ends_with("has ended"), "{output}");
}

#[tokio::test]
async fn no_caller_has_the_agent_run_a_program_unless_the_agent_was_told_to() {
    let agent = TestAgent::start().await;
    let checks = json!([{"kind": "command", "command": ["true"]}]);
    let body = with_checks("10.0.0.7:80", &checks);
    let reply = agent.client().post(ALL, &body).await;
    let text = refused(&reply, 400, "invalid_request");
    assert!(text.contains("command"), "{text}");
    let all = agent.client().get(ALL).await.expect(200);
    assert_eq!(all, json!({"registrations": []}));

    let registry = Memory::new().connect();
    let mut readers = readers(&registry);
    let mut settings = Settings::default();
    settings.commands = Commands::Allowed;
    let registrations = Registrations::with_settings(registry, settings);
    let declaration = serde_json::from_value(body).unwrap();
    let me = Caller("me".into());
    registrations.register(&me, declaration).await.unwrap();
    until_ready(&mut readers, true).await;
}

#[tokio::test]
async fn a_check_that_can_never_work_is_told_with_its_field_and_registers_nothing() {
    let agent = TestAgent::start().await;
    let many = vec![json!({"kind": "tcp"}); 17];
    for (checks, parts) in [
        (
            json!([{"kind": "tcp", "adress": "h:1"}]),
            &["checks[0]", "`adress`"][..],
        ),
        (
            json!([{"kind": "tcp"}, {"kind": "tpc"}]),
            &["checks[1]", "`tpc`"],
        ),
        (json!([{"kind": "ttl"}]), &["checks[0]", "`ttl`"]),
        (
            json!([{"kind": "tcp", "interval": "1ms"}]),
            &["interval", "100ms"],
        ),
        (json!([{"kind": "tcp", "address": "h"}]), &["address"]),
        (
            json!([{"kind": "http", "url": "https://h/"}]),
            &["url", "TLS"],
        ),
        (
            json!([{"kind": "tcp", "name": "a"}, {"kind": "http", "name": "a"}]),
            &["name", "\"a\""],
        ),
        (json!(many), &["16"]),
    ] {
        let body = with_checks("10.0.0.7:80", &checks).to_string();
        let reply = agent.client().ask(Method::POST, ALL, body.clone()).await;
        assert!(reply.status.is_client_error(), "{body}: {reply:?}");
        let error: Value = serde_json::from_slice(&reply.body).unwrap();
        let text = error["error"].as_str().unwrap();
        for part in parts {
            assert!(text.contains(part), "{body}: {text}");
        }
    }
    let all = agent.client().get(ALL).await.expect(200);
    assert_eq!(all, json!({"registrations": []}));
    assert!(agent.registry.services().await.unwrap().is_empty());
}

/// A registration that is withdrawn leaves no check behind that goes on asking.
#[tokio::test]
async fn what_is_withdrawn_is_checked_no_more() {
    let agent = TestAgent::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let checks = json!([{"kind": "tcp", "interval": "100ms"}]);
    let body = with_checks(&address, &checks);
    agent.client().post(ALL, &body).await.expect(200);
    timeout(LONG, listener.accept()).await.unwrap().unwrap();
    agent.client().delete(PATH).await.expect(200);
    // What had begun before the end may still arrive.
    let quiet = async {
        let mut late = 0;
        while let Ok(accepted) = timeout(Duration::from_secs(1), listener.accept()).await {
            accepted.unwrap();
            late += 1;
        }
        late
    };
    let late = timeout(LONG, quiet).await.expect("it falls silent");
    assert!(late <= 2, "{late}");
}
