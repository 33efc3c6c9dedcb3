//! The reference system's API over HTTP, for clients of all of its generations.

use std::time::Duration;

use http::Method;
use sd_core::memory::Memory;
use serde_json::{Value, json};

use crate::api::refused;
use crate::common::bodies::{flat, nested};
use crate::common::{HttpClient, TestAgent, TestConfig};

/// A reply in the shapes of all generations: the service at the top level, and in the envelope.
async fn done(client: &HttpClient, path: &str, body: &Value) -> Value {
    let reply = client.post(path, body).await.expect(200);
    assert_eq!(reply["success"], true, "{reply}");
    assert_eq!(reply["code"], "ok", "{reply}");
    humantime::parse_rfc3339(reply["generated_at"].as_str().unwrap()).unwrap();
    let data = reply["data"].as_object().unwrap();
    for (field, value) in data {
        assert_eq!(reply[field], *value, "{reply}");
    }
    reply["data"].clone()
}

/// The reference system's case of a registration that serves, and of all dialects that are accepted.
#[tokio::test]
async fn clients_of_all_generations_register_drain_and_deregister() {
    let ids = json!({"app_id": "a-1", "app_instance_id": "run-1"});
    let with = |mut body: Value, more: &Value| {
        let more = more.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(more);
        body
    };
    let mut third = nested("auth", 9090, "run-1");
    third["dns"] = json!("auth.default.svc.cluster.local");
    let routes = json!([{"http_method": "POST", "path": "/v1/login", "full_method": "/acme.auth.v1.AuthService/Login"}]);
    let fourth = with(third.clone(), &json!({"http_routes": routes}));
    let by_port = json!({"name": "auth", "port": 9090});
    let by_service = with(
        ids.clone(),
        &json!({"service_name": "auth", "service_port": 9090}),
    );
    for (register, leave) in [
        (flat("auth", 9090), &by_port),
        (nested("auth", 9090, "run-1"), &by_service),
        (third, &ids),
        (fourth, &ids),
    ] {
        let agent = TestAgent::start().await;
        let client = agent.client();
        let served = done(&client, "/register", &register).await;
        assert_eq!(served["state"], "Serving", "{served}");
        assert_eq!(served["address"], "10.0.0.7");
        assert_eq!(served["zone"], "a");
        assert_eq!(
            served["route_prefixes"],
            json!(["/acme.auth.v1.AuthService/"])
        );
        assert_eq!(
            served["route_config_ref"],
            "routes/prod/default/auth/current"
        );
        let id = served["instance_id"].as_str().unwrap();
        assert_eq!(
            served["lease_check_id"],
            format!("service:{id}:agent-lease")
        );
        for field in ["agent_id", "agent_run_id", "registered_at", "updated_at"] {
            assert!(!served[field].as_str().unwrap().is_empty(), "{field}");
        }
        assert_eq!(served.get("drain_deadline"), None);
        let request = &served["request"];
        assert_eq!(request["name"], "auth");
        assert_eq!(request["port"], 9090);
        assert_eq!(request["weight"], 100);
        assert_eq!(request["dns"], "auth.default.svc.cluster.local");
        assert_eq!(
            request["kernel"],
            json!({"language": "Golang", "version": "v1.4.8"})
        );
        let listed = agent.registry.list("auth").await.unwrap();
        let [instance] = listed.instances() else {
            panic!("{listed:?}")
        };
        assert_eq!(instance.endpoint().to_string(), "10.0.0.7:9090");
        assert_eq!(instance.weight(), 100);
        assert_eq!(instance.metadata()["env"], "prod");

        let grace = json!({"grace_period": "1m30s"});
        let drained = done(&client, "/drain", &with(leave.clone(), &grace)).await;
        assert_eq!(drained["state"], "Draining", "{drained}");
        let deadline = drained["drain_deadline"].as_str().unwrap();
        let left = humantime::parse_rfc3339(deadline).unwrap();
        let left = left.duration_since(std::time::SystemTime::now()).unwrap();
        assert!(
            left > Duration::from_secs(30) && left <= Duration::from_secs(90),
            "{left:?}"
        );
        let listed = agent.registry.list("auth").await.unwrap();
        assert!(!listed.instances()[0].is_ready());

        let gone = done(&client, "/deregister", leave).await;
        assert_eq!(gone["state"], "Deregistered", "{gone}");
        assert!(agent.registry.list("auth").await.unwrap().is_empty());
    }
}

/// The reference system's case of a deregistration that is repeated, which fails there.
#[tokio::test]
async fn deregistering_what_is_gone_or_was_never_there_is_a_success_unless_it_is_to_be_strict() {
    let agent = TestAgent::start().await;
    let client = agent.client();
    done(&client, "/register", &flat("auth", 9090)).await;
    let leave = json!({"name": "auth", "port": 9090});
    for _ in 0..3 {
        let gone = done(&client, "/deregister", &leave).await;
        assert_eq!(gone["state"], "Deregistered");
    }
    let unknown = json!({"name": "unknown", "port": 9090});
    assert_eq!(
        done(&client, "/deregister", &unknown).await["state"],
        "Deregistered"
    );
    let drain = client.post("/drain", &unknown).await;
    let text = refused(&drain, 404, "service_not_found");
    assert_eq!(text, "local service not found: unknown:9090");

    let config = TestConfig::with_api(|api| api.strict_deregister = true);
    let strict = TestAgent::start_at(Memory::new().connect(), config).await;
    let reply = strict.client().post("/deregister", &unknown).await;
    let text = refused(&reply, 404, "service_not_found");
    assert_eq!(text, "local service not found: unknown:9090");
}

/// The reference system's case of a registration that is replayed, and of one that has changed.
#[tokio::test]
async fn a_replay_keeps_the_instance_and_a_change_replaces_it() {
    let agent = TestAgent::start().await;
    let client = agent.client();
    let first = done(&client, "/register", &nested("auth", 9090, "run-1")).await;
    let again = done(&client, "/register", &nested("auth", 9090, "run-1")).await;
    assert_eq!(first["instance_id"], again["instance_id"]);
    let mut changed = nested("auth", 9090, "run-1");
    changed["methods"] = json!([
        "/acme.auth.v1.AuthService/Login",
        "/acme.auth.v1.AuthService/New"
    ]);
    let changed = done(&client, "/register", &changed).await;
    assert_ne!(first["instance_id"], changed["instance_id"]);
    let listed = agent.registry.list("auth").await.unwrap();
    let [instance] = listed.instances() else {
        panic!("{listed:?}")
    };
    assert_eq!(changed["instance_id"], instance.id().as_str());
}

#[tokio::test]
async fn all_services_of_one_run_leave_at_once() {
    let agent = TestAgent::start().await;
    let client = agent.client();
    for (name, port) in [("b", 1), ("a", 2)] {
        done(&client, "/register", &nested(name, port, "run-1")).await;
    }
    done(&client, "/register", &nested("c", 3, "run-2")).await;
    let ids = json!({"app_id": "a-1", "app_instance_id": "run-1"});
    let gone = done(&client, "/deregister", &ids).await;
    assert_eq!(gone["state"], "Deregistered");
    let names = gone["services"].as_array().unwrap().iter();
    let mut names: Vec<_> = names
        .map(|service| service["request"]["name"].as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, [Some("a"), Some("b")]);
    let left: Vec<String> = agent
        .registry
        .services()
        .await
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(left, ["c"]);
}

/// The reference system's case of requests that are wrong, with its texts.
#[tokio::test]
async fn a_bad_body_is_refused_in_the_words_of_the_reference_system_and_leaves_nothing() {
    let agent = TestAgent::start().await;
    let client = agent.client();
    let changed = |mut body: Value, pointer: &str, value: Value| {
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    let flat = || flat("auth", 9090);
    let nested = || nested("auth", 9090, "run-1");
    for (path, body, text) in [
        (
            "/register",
            changed(flat(), "/name", json!(" ")),
            "name is required",
        ),
        (
            "/register",
            changed(flat(), "/kernel/version", json!("")),
            "kernel.version is required",
        ),
        (
            "/register",
            changed(flat(), "/port", json!(0)),
            "port is invalid: 0",
        ),
        (
            "/register",
            changed(flat(), "/port", json!(70000)),
            "port is invalid: 70000",
        ),
        (
            "/register",
            changed(flat(), "/weight", json!(0)),
            "weight must be greater than zero",
        ),
        (
            "/register",
            changed(flat(), "/methods", json!([])),
            "methods must not be empty",
        ),
        (
            "/register",
            changed(flat(), "/methods/0", json!("Login")),
            "method is invalid: Login",
        ),
        (
            "/register",
            changed(nested(), "/app/id", json!("")),
            "app.id is required",
        ),
        (
            "/register",
            changed(nested(), "/service/name", json!("")),
            "service.name is required",
        ),
        (
            "/register",
            changed(nested(), "/server_port", json!(-1)),
            "port is invalid: -1",
        ),
        ("/drain", json!({}), "name is required"),
        ("/drain", json!({"name": "auth"}), "port is invalid: 0"),
        (
            "/drain",
            json!({"name": "auth", "port": 1, "grace_period": "0s"}),
            "grace_period must be greater than zero",
        ),
        (
            "/drain",
            json!({"name": "auth", "port": 1, "grace_period": "soon"}),
            "time: invalid duration \"soon\"",
        ),
        ("/deregister", json!({}), "name is required"),
    ] {
        let reply = client.post(path, &body).await;
        assert_eq!(
            refused(&reply, 400, "invalid_request"),
            text,
            "{path} {body}"
        );
    }
    for path in ["/register", "/drain", "/deregister"] {
        for body in ["", "{", "[]", "\u{1b}[2J"] {
            let reply = client.ask(Method::POST, path, body).await;
            let text = refused(&reply, 400, "invalid_request");
            assert!(!text.contains('\u{1b}'), "{text}");
        }
    }
    assert_eq!(client.get("/debug/services").await.expect(200), json!([]));
    assert!(agent.registry.services().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_the_agent_has_is_shown_by_name_and_port_also_what_is_gone() {
    let agent = TestAgent::start().await;
    let client = agent.client();
    for (name, port) in [("b", 9), ("a", 10), ("a", 9)] {
        done(&client, "/register", &flat(name, port)).await;
    }
    done(&client, "/deregister", &json!({"name": "a", "port": 10})).await;
    let shown = client.get("/debug/services").await.expect(200);
    let shown = shown.as_array().unwrap().iter();
    let shown: Vec<Value> = shown
        .map(|service| {
            let request = &service["request"];
            json!([request["name"], request["port"], service["state"]])
        })
        .collect();
    let expected = json!([
        ["a", 9, "Serving"],
        ["a", 10, "Deregistered"],
        ["b", 9, "Serving"]
    ]);
    assert_eq!(json!(shown), expected);
    assert_eq!(client.get("/debug/xds").await.expect(200), json!({}));
}
