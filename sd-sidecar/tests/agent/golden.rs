//! The bytes that clients of the reference system send, and the replies they get: equal but for ids and times.
//!
//! The requests are written from the documented structs of the reference system, whose modules do not run here.

use http::Method;
use serde_json::{Value, json};

use crate::common::TestAgent;

const REGISTER: [(&str, &str); 5] = [
    (
        "G1",
        include_str!("../../src/wire/dialect/golden/register-g1.json"),
    ),
    (
        "G2",
        include_str!("../../src/wire/dialect/golden/register-g2.json"),
    ),
    (
        "G3",
        include_str!("../../src/wire/dialect/golden/register-g3.json"),
    ),
    (
        "G4",
        include_str!("../../src/wire/dialect/golden/register-g4.json"),
    ),
    (
        "union",
        include_str!("../../src/wire/dialect/golden/register-union.json"),
    ),
];

const BY_PORT: &str = r#"{"name":"auth","port":9090"#;
const BY_SERVICE: &str = r#"{"app_id":"a-1","app_instance_id":"0190aaaa","service_name":"auth""#;
const BY_RUN: &str = r#"{"app_id":"a-1","app_instance_id":"0190aaaa""#;

/// Puts a word where the kind of value is known and the value is not.
fn masked(mut reply: Value) -> Value {
    const MASKED: [&str; 7] = [
        "instance_id",
        "agent_id",
        "agent_run_id",
        "registered_at",
        "updated_at",
        "drain_deadline",
        "generated_at",
    ];
    let fields = reply.as_object_mut().unwrap();
    let id = fields.get("instance_id").and_then(Value::as_str);
    let id = id.unwrap_or("none").to_owned();
    for (field, value) in fields.iter_mut() {
        if MASKED.contains(&field.as_str()) {
            assert!(!value.as_str().unwrap().is_empty(), "{field}");
            *value = json!("*");
        }
        if let Some(text) = value.as_str() {
            *value = json!(text.replace(&id, "*"));
        }
        if field == "data" {
            *value = masked(value.clone());
        }
    }
    reply
}

/// The service as the reference system shows it.
fn service(dialect: &str, state: &str) -> Value {
    let mut request = json!({
        "app_id": "a-1", "app_name": "auth-app", "name": "auth", "namespace": "default",
        "dns": "auth.default.svc.cluster.local", "env": "prod", "protocol": "grpc", "version": "v1.2.0",
        "port": 9090, "weight": 100, "kernel": {"language": "Golang", "version": "v1.4.8"},
        "methods": ["/acme.auth.v1.AuthService/Login"],
    });
    if dialect != "G1" {
        request["app_instance_id"] = json!("0190aaaa");
        request["run_date"] = json!("2026-01-02T15:04:05+08:00");
    }
    if matches!(dialect, "G4" | "union") {
        request["http_routes"] = json!([
            {"http_method": "POST", "path": "/v1/login", "full_method": "/acme.auth.v1.AuthService/Login"},
        ]);
    }
    let mut service = json!({
        "request": request, "instance_id": "*", "agent_id": "*", "agent_run_id": "*",
        "address": "10.0.0.7", "zone": "a", "route_prefixes": ["/acme.auth.v1.AuthService/"],
        "route_config_ref": "routes/prod/default/auth/current", "lease_check_id": "service:*:agent-lease",
        "state": state, "registered_at": "*", "updated_at": "*",
    });
    if state == "Draining" {
        service["drain_deadline"] = json!("*");
    }
    service
}

/// In the envelope and beside it.
fn enveloped(service: &Value) -> Value {
    let mut reply = service.clone();
    reply["success"] = json!(true);
    reply["code"] = json!("ok");
    reply["message"] = json!("ok");
    reply["generated_at"] = json!("*");
    reply["data"] = service.clone();
    reply
}

#[tokio::test]
async fn the_bytes_of_every_generation_are_replied_to_as_the_reference_system_does() {
    for (dialect, register) in REGISTER {
        let agent = TestAgent::start().await;
        let client = agent.client();
        let leave = match dialect {
            "G1" => BY_PORT,
            "G2" => BY_SERVICE,
            _ => BY_RUN,
        };
        for (path, body, state) in [
            ("/register", register.to_owned(), "Serving"),
            (
                "/drain",
                format!(r#"{leave},"grace_period":"20s"}}"#),
                "Draining",
            ),
            ("/deregister", format!("{leave}}}"), "Deregistered"),
        ] {
            let reply = client.ask(Method::POST, path, body).await.expect(200);
            let expected = enveloped(&service(dialect, state));
            assert_eq!(masked(reply), expected, "{dialect} {path}");
        }
    }
}

/// Names of fields in any case, unknown fields, and what follows the first value.
#[tokio::test]
async fn what_go_would_read_is_read() {
    let agent = TestAgent::start().await;
    let client = agent.client();
    let body = REGISTER[0]
        .1
        .replace("\"name\"", "\"NAME\"")
        .replace("{\"app_id\"", "{\"x\":[{}],\"App_Id\"");
    let reply = client
        .ask(Method::POST, "/register", format!("{body} trash"))
        .await;
    assert_eq!(
        masked(reply.expect(200)),
        enveloped(&service("G1", "Serving"))
    );
    let refused = client
        .ask(Method::POST, "/register", "{\"port\":\"9090\"}")
        .await;
    let text = refused.expect(400)["error"].as_str().unwrap().to_owned();
    assert!(
        text.starts_with("port: invalid type: string \"9090\""),
        "{text}"
    );
}
