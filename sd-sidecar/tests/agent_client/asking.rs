//! What is asked of an agent, and what its answers mean.

use std::time::Duration;

use sd_sidecar::agent::{
    AgentError, ApiClient, App, Client, Dialect, HttpClient, Kernel, Service, ServiceNode,
    ServiceOptions,
};

use crate::fake_agent::{Answer, FakeAgent, SOON};

pub(crate) fn node() -> ServiceNode {
    let options = ServiceOptions {
        app: App {
            id: "a-1".into(),
            env: "prod".into(),
            name: "auth-app".into(),
            version: "v1.2.0".into(),
            instance_id: "0190aaaa".into(),
        },
        kernel: Kernel {
            language: "Golang".into(),
            version: "v1.4.8".into(),
        },
        service: Service {
            name: "auth".into(),
            ..Service::default()
        },
        protocol: "grpc".into(),
        server_port: 9090,
        managed_port: 9091,
    };
    ServiceNode {
        run_date: "2026-01-02T15:04:05+08:00".into(),
        ..ServiceNode::new(options, ["/acme.auth.v1.AuthService/Login".to_owned()])
    }
}

fn client(agent: &FakeAgent) -> ApiClient {
    ApiClient::new(HttpClient::new(&agent.url, SOON).unwrap())
}

/// A11, and the reference system's published client, whose bodies the published agent refuses (C15): these hold what both read.
#[tokio::test]
async fn requests_have_the_bytes_of_every_generation_and_their_headers() {
    let mut agent = FakeAgent::start().await;
    let golden = |name: &str| {
        let path = format!(
            "{}/src/wire/dialect/golden/register-{name}.json",
            env!("CARGO_MANIFEST_DIR")
        );
        std::fs::read_to_string(path).unwrap()
    };
    for (dialect, name) in [
        (Dialect::G1, "g1"),
        (Dialect::G2, "g2"),
        (Dialect::G3, "g3"),
    ] {
        client(&agent)
            .with_dialect(dialect)
            .register(&node())
            .await
            .unwrap();
        let request = agent.request().await;
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("POST", "/register")
        );
        assert_eq!(request.body, golden(name).trim_end());
        assert_eq!(request.headers["content-type"], "application/json");
        assert_eq!(request.headers["accept"], "application/json");
        assert_eq!(request.headers["accept-encoding"], "identity");
        assert_eq!(request.headers.get("authorization"), None);
        assert!(agent.url.ends_with(&request.headers["host"]));
    }
    client(&agent).register(&node()).await.unwrap();
    let body: serde_json::Value = serde_json::from_str(&agent.request().await.body).unwrap();
    assert_eq!(
        (&body["name"], &body["service"]["name"]),
        (&"auth".into(), &"auth".into())
    );
    assert_eq!(
        (&body["kernel"]["language"], &body["app"]["secret"]),
        (&"Golang".into(), &"".into())
    );

    let client = client(&agent).with_dialect(Dialect::G1);
    client
        .drain(&node(), Some(Duration::from_secs(90)))
        .await
        .unwrap();
    let request = agent.request().await;
    assert_eq!(request.path, "/drain");
    assert_eq!(
        request.body,
        r#"{"name":"auth","port":9090,"grace_period":"1m30s"}"#
    );
    client.drain(&node(), None).await.unwrap();
    assert_eq!(
        agent.request().await.body,
        r#"{"name":"auth","port":9090,"grace_period":""}"#
    );
    client.deregister(&node()).await.unwrap();
    let request = agent.request().await;
    assert_eq!(
        (request.path.as_str(), request.body.as_str()),
        ("/deregister", r#"{"name":"auth","port":9090}"#)
    );
}

/// A12.
#[tokio::test]
async fn a_refusal_is_told_with_code_and_message_of_every_generation() {
    let agent = FakeAgent::start().await;
    let begin = "sidecar api request failed: POST /register returned 502";
    for (body, text) in [
        (
            r#"{"success":false,"code":"register_failed","message":"no quorum"}"#,
            format!("{begin} (register_failed): no quorum"),
        ),
        (
            r#"{"code":"register_failed"}"#,
            format!("{begin} (register_failed)"),
        ),
        (
            r#"{"error":"name is required"}"#,
            format!("{begin} Bad Gateway: name is required"),
        ),
        ("<html>", format!("{begin} Bad Gateway")),
        ("", format!("{begin} Bad Gateway")),
        (r#"{"code":7}"#, format!("{begin} Bad Gateway")),
        (
            "{\"message\":\"a\\u001b[2J\\nb\"}",
            format!("{begin} Bad Gateway: a\\u{{1b}}[2J\\nb"),
        ),
    ] {
        agent.refuse("/register", "502 Bad Gateway", body);
        let error = client(&agent).register(&node()).await.unwrap_err();
        assert_eq!(error.to_string(), text);
        assert_eq!(error.kind(), "sidecar_api");
    }
}

/// The reference system's notion of success (C10): 200 with `"success": false` is one, 201 is none.
#[tokio::test]
async fn success_is_what_the_agent_says_is_one() {
    let agent = FakeAgent::start().await;
    let client = client(&agent);
    for (status, body) in [
        ("200 OK", "{}"),
        ("201 Created", ""),
        ("204 No Content", ""),
        ("200 OK", "ok"),
        ("202 Accepted", "{\"success\":true}"),
    ] {
        agent.refuse("/register", status, body);
        client.register(&node()).await.unwrap();
    }
    for (status, body) in [
        ("200 OK", "{\"success\":false,\"code\":\"x\"}"),
        ("302 Found", ""),
        ("404 Not Found", "{\"success\":true}"),
    ] {
        agent.refuse("/register", status, body);
        let error = client.register(&node()).await.unwrap_err();
        assert!(matches!(error, AgentError::Api(_)), "{error}");
    }
}

#[tokio::test]
async fn what_is_not_there_has_been_deregistered_and_cannot_be_drained() {
    let agent = FakeAgent::start().await;
    let client = client(&agent);
    let flat = r#"{"error":"local service not found: auth:9090"}"#;
    let envelope = r#"{"success":false,"code":"service_not_found","message":"unknown"}"#;
    for (status, body) in [("400 Bad Request", flat), ("404 Not Found", envelope)] {
        agent.refuse("/deregister", status, body);
        client.deregister(&node()).await.unwrap();
        agent.refuse("/drain", status, body);
        client.drain(&node(), None).await.unwrap_err();
    }
    agent.refuse("/deregister", "400 Bad Request", r#"{"error":"no leader"}"#);
    client.deregister(&node()).await.unwrap_err();
}

/// The reference system's answers of any length (C10).
#[tokio::test]
async fn an_answer_without_an_end_is_given_up() {
    let agent = FakeAgent::start().await;
    agent.answer("/register", Answer::Endless);
    let error = client(&agent).register(&node()).await.unwrap_err();
    assert!(
        matches!(&error, AgentError::Transport { reason, .. } if reason.contains("length limit")),
        "{error}"
    );
}

/// A13.
#[tokio::test]
async fn a_request_has_its_time() {
    let agent = FakeAgent::start().await;
    agent.answer("/register", Answer::Never);
    let within = Duration::from_millis(200);
    let client = ApiClient::new(HttpClient::new(&agent.url, within).unwrap());
    let error = client.register(&node()).await.unwrap_err();
    assert!(
        matches!(&error, AgentError::TimedOut { after, .. } if *after == within),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .starts_with("POST /register at http://127.0.0.1:"),
        "{error}"
    );
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_named() {
    let url = FakeAgent::start().await.url.clone();
    let client = ApiClient::new(HttpClient::new(&url, SOON).unwrap());
    let error = client.register(&node()).await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("POST /register at {url}: ")),
        "{error}"
    );
    let client = ApiClient::new(HttpClient::new("unix:/no/such/socket", SOON).unwrap());
    let error = client.register(&node()).await.unwrap_err().to_string();
    assert!(
        error.starts_with("POST /register at unix:/no/such/socket: "),
        "{error}"
    );
}

#[tokio::test]
async fn a_unix_socket_and_a_token_are_used_and_the_token_is_shown_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = FakeAgent::start_at(&folder.path().join("agent.sock"));
    let http = HttpClient::new(&agent.url, SOON)
        .unwrap()
        .with_token("hunter2")
        .unwrap();
    assert!(!format!("{http:?}").contains("hunter2"));
    ApiClient::new(http).register(&node()).await.unwrap();
    let request = agent.request().await;
    assert_eq!(request.headers["authorization"], "Bearer hunter2");
    assert_eq!(request.headers["host"], "localhost");
    let http = HttpClient::new(&agent.url, SOON).unwrap();
    let error = http.with_token("a\nb").unwrap_err().to_string();
    assert_eq!(error, "the token holds characters that no header can");
}
