//! The routes under `/v1` and the probes over HTTP: their statuses and their answers.

use std::net::Ipv4Addr;
use std::time::Duration;

use http::Method;
use sd_core::memory::Memory;
use sd_sidecar::daemon::api::{ApiConfig, ApiState, router};
use sd_sidecar::daemon::lifecycle::Lifecycle;
use sd_sidecar::daemon::registrations::Registrations;
use sd_testing::{Answer, LONG, Op, eventually};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::common::{CALLER, HttpClient, Reply, TestAgent, TestConfig};
use crate::registrations::scripted;

pub(crate) const ALL: &str = "/v1/registrations";

/// An error in the shapes of all generations, and its text.
pub(crate) fn refused(reply: &Reply, status: u16, code: &str) -> String {
    let error = reply.expect(status);
    assert_eq!(error["success"], false, "{error}");
    assert_eq!(error["code"], code, "{error}");
    assert_eq!(error["message"], error["error"], "{error}");
    let at = error["generated_at"].as_str().unwrap();
    humantime::parse_rfc3339(at).unwrap();
    let text = error["error"].as_str().unwrap();
    assert!(!text.is_empty(), "{error}");
    text.to_owned()
}

fn declaration(service: &str, address: &str) -> Value {
    json!({"service": service, "address": address})
}

#[tokio::test]
async fn the_agent_says_that_it_lives_and_is_ready() {
    let agent = TestAgent::start().await;
    let alive = agent.client().get("/healthz").await;
    assert_eq!(alive.expect(200), json!({"status": "ok"}));
    let ready = agent.client().get("/readyz").await.expect(200);
    assert_eq!(ready["status"], "ready");
    assert_eq!(ready["lifecycle"], "running");
    assert_eq!(ready["reasons"], json!([]));
}

#[tokio::test]
async fn an_agent_that_is_not_ready_says_why() {
    let agent = TestAgent::start().await;
    let why = "the state cannot be written";
    for (lifecycle, name, reason) in [
        (Lifecycle::Starting, "starting", "the agent is starting"),
        (
            Lifecycle::Degraded([why.to_owned()].into()),
            "degraded",
            why,
        ),
        (Lifecycle::Stopping, "stopping", "the agent is stopping"),
    ] {
        agent.lifecycle.send_replace(lifecycle);
        let ready = agent.client().get("/readyz").await.expect(503);
        assert_eq!(ready["status"], "not_ready");
        assert_eq!(ready["lifecycle"], name);
        assert_eq!(ready["reasons"], json!([reason]));
        let alive = agent.client().get("/healthz").await;
        assert_eq!(alive.expect(200), json!({"status": "ok"}));
    }
    agent.lifecycle.send_replace(Lifecycle::Running);
    agent.registry.close().await.unwrap();
    // It is looked at once a second.
    let told = async || {
        let ready = agent.client().get("/readyz").await;
        ready.status == 503 && ready.expect(503)["reasons"] == json!(["the registry is closed"])
    };
    eventually("told", LONG, told).await;
}

/// The reference system's case of the shapes of 404 and 405, of which it leaves the bodies empty.
#[tokio::test]
async fn what_is_not_there_or_not_allowed_is_told_in_the_shapes_of_all_generations() {
    let agent = TestAgent::start().await;
    for path in ["/", "/nothing", "/v1", "/v1/services/a/b/c", "/register/"] {
        let reply = agent.client().get(path).await;
        let text = refused(&reply, 404, "not_found");
        assert_eq!(text, format!("there is no {path}"));
    }
    for (method, path, allowed) in [
        (Method::GET, "/register", "POST"),
        (Method::PUT, "/drain", "POST"),
        (Method::DELETE, "/deregister", "POST"),
        (Method::POST, "/watch", "GET,HEAD"),
        (Method::POST, "/healthz", "GET,HEAD"),
        (Method::POST, "/readyz", "GET,HEAD"),
        (Method::POST, "/debug/services", "GET,HEAD"),
        (Method::DELETE, ALL, "GET,HEAD,POST"),
        (Method::POST, "/v1/registrations/s/i", "GET,HEAD,DELETE"),
        (Method::GET, "/v1/registrations/s/i/drain", "POST"),
        (Method::GET, "/v1/registrations/s/i/beat", "POST"),
        (Method::POST, "/v1/registrations/s/i/ready", "PUT"),
        (Method::POST, "/v1/services", "GET,HEAD"),
        (Method::PUT, "/v1/services/s", "GET,HEAD"),
        (Method::POST, "/v1/services/s/events", "GET,HEAD"),
    ] {
        let reply = agent.client().ask(method.clone(), path, "{}").await;
        let text = refused(&reply, 405, "method_not_allowed");
        assert_eq!(text, format!("{method} is not allowed at {path}"));
        assert_eq!(reply.header("allow"), allowed, "{method} {path}");
    }
}

#[tokio::test]
async fn a_registration_is_declared_shown_made_unready_drained_and_withdrawn() {
    let agent = TestAgent::start().await;
    let client = agent.client();
    let body = json!({
        "service": "greeter", "address": "10.0.0.8:50051", "id": "g-1", "version": "1.2.0", "weight": 5,
        "tags": ["blue"], "metadata": {"team": "a"},
    });
    let reply = client.post(ALL, &body).await;
    let declared = reply.expect(200);
    let path = "/v1/registrations/greeter/g-1";
    assert_eq!(reply.header("location"), path);
    assert_eq!(declared["service"], "greeter");
    assert_eq!(declared["id"], "g-1");
    assert_eq!(declared["stage"], "Serving");
    assert_eq!(declared["owner"], "anonymous");
    assert_eq!(declared["health"], json!({"passing": true, "checks": []}));
    assert_eq!(declared["instance"]["address"], "10.0.0.8:50051");
    assert_eq!(declared["instance"]["weight"], 5);
    assert_eq!(declared["instance"]["metadata"]["team"], "a");
    assert_eq!(declared["error"], Value::Null);
    assert_eq!(declared["drain_deadline"], Value::Null);
    for time in ["registered_at", "updated_at"] {
        humantime::parse_rfc3339(declared[time].as_str().unwrap()).unwrap();
    }
    assert_eq!(agent.registry.list("greeter").await.unwrap().len(), 1);

    let shown = client.get(path).await.expect(200);
    assert_eq!(shown["incarnation"], declared["incarnation"]);
    let all = client.get(ALL).await.expect(200);
    assert_eq!(all, json!({"registrations": [shown]}));
    let others = client.get("/v1/registrations?service=other").await;
    assert_eq!(others.expect(200), json!({"registrations": []}));

    let ready = format!("{path}/ready");
    let unready = client.put(&ready, &json!({"ready": false})).await;
    let unready = unready.expect(200);
    assert_eq!(unready["stage"], "Registered");
    assert_eq!(unready["incarnation"], declared["incarnation"]);
    let listed = agent.registry.list("greeter").await.unwrap();
    assert!(!listed.instances()[0].is_ready());
    let ready = client.put(&ready, &json!({"ready": true})).await;
    assert_eq!(ready.expect(200)["stage"], "Serving");

    let drained = client
        .post(&format!("{path}/drain"), &json!({"grace": "1h"}))
        .await;
    let drained = drained.expect(200);
    assert_eq!(drained["stage"], "Draining");
    let deadline = drained["drain_deadline"].as_str().unwrap();
    let left = humantime::parse_rfc3339(deadline).unwrap();
    let left = left.duration_since(std::time::SystemTime::now()).unwrap();
    assert!(
        left > Duration::from_secs(3000) && left < Duration::from_secs(3601),
        "{left:?}"
    );
    let listed = agent.registry.list("greeter").await.unwrap();
    assert!(!listed.instances()[0].is_ready());

    let gone = client.delete(path).await.expect(200);
    assert_eq!(gone["stage"], "Deregistered");
    assert_eq!(gone["drain_deadline"], Value::Null);
    assert!(agent.registry.list("greeter").await.unwrap().is_empty());
}

#[tokio::test]
async fn what_the_registry_has_not_confirmed_is_answered_with_202_and_why() {
    let (backend, registry) = scripted();
    let config = TestConfig {
        confirm_within: Duration::from_millis(200),
        ..TestConfig::default()
    };
    let agent = TestAgent::start_at(registry, config).await;
    let client = agent.client();
    let declare = |port: u16| json!({"service": "greeter", "id": "g-1", "port": port});
    let path = "/v1/registrations/greeter/g-1";
    // While the registry is slow, a registration may take longer than that.
    let registered = async || client.get(path).await.json()["stage"] == "Serving";
    client.post("/v1/registrations", &declare(1)).await;
    eventually("registered", LONG, registered).await;
    backend.registrar.answer_all(Op::Update, Answer::Hang);
    let moved = client.post("/v1/registrations", &declare(2)).await;
    let ready = format!("{path}/ready");
    let unready = client.put(&ready, &json!({"ready": false})).await;
    let drained = client
        .post(&format!("{path}/drain"), &json!({"grace": "1h"}))
        .await;
    for reply in [moved, unready, drained] {
        let entry = reply.expect(202);
        let why = entry["error"].as_str().unwrap_or_default();
        assert!(why.contains("confirm"), "{entry}");
    }
}

#[tokio::test]
async fn a_replay_of_a_declaration_changes_nothing() {
    let agent = TestAgent::start().await;
    let body = declaration("greeter", "10.0.0.8:50051");
    let first = agent.client().post(ALL, &body).await.expect(200);
    let again = agent.client().post(ALL, &body).await.expect(200);
    assert_eq!(first["incarnation"], again["incarnation"]);
    assert_eq!(first["id"], again["id"]);
    assert_eq!(first["registered_at"], again["registered_at"]);
    let all = agent.client().get(ALL).await.expect(200);
    assert_eq!(all["registrations"].as_array().unwrap().len(), 1);
    assert_eq!(agent.registry.list("greeter").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_bad_declaration_is_told_with_its_field_and_leaves_nothing() {
    let agent = TestAgent::start().await;
    for (body, parts) in [
        ("", &["the body is empty"][..]),
        ("{", &["EOF", "line 1 column 1"]),
        ("[]", &["no JSON object"]),
        (
            "{\"service\": \"a\",\n \"port\": 70000}",
            &["port: ", "70000", "line 2"],
        ),
        (
            "{\"service\": \"a\", \"port\": \"80\"}",
            &["port: ", "string"],
        ),
        (
            "{\"service\": \"\", \"port\": 80}",
            &["service: ", "service name"],
        ),
        (
            "{\"service\": \"a\\nb\", \"port\": 80}",
            &["service: ", "control"],
        ),
        ("{\"port\": 80}", &["missing field `service`"]),
        (
            "{\"service\": \"a\", \"prot\": 80}",
            &["unknown field `prot`"],
        ),
        (
            "{\"service\": \"a\", \"port\": 80, \"ttl\": \"soon\"}",
            &["ttl: "],
        ),
        ("{\"service\": \"a\", \"port\": 80} {}", &["trailing"]),
        (
            "{\"service\": \"a\", \"address\": \"nowhere\"}",
            &["address: "],
        ),
        (
            "{\"service\": \"a\", \"address\": \"h:1\", \"port\": 1}",
            &["address", "port"],
        ),
        ("{\"service\": \"a\"}", &["address", "port"]),
        ("{\"\u{9b}2J\": 1}", &["\\u{9b}2J"]),
    ] {
        let reply = agent.client().ask(Method::POST, ALL, body).await;
        let text = refused(&reply, 400, "invalid_request");
        for part in parts {
            assert!(text.contains(part), "{body}: {text}");
        }
    }
    let all = agent.client().get(ALL).await.expect(200);
    assert_eq!(all, json!({"registrations": []}));
    assert!(agent.registry.services().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_one_has_declared_no_other_can_change() {
    let agent = TestAgent::start().await;
    let owner = agent.client().with(CALLER, "owner");
    let body = json!({"service": "greeter", "address": "10.0.0.8:50051", "id": "g-1"});
    let declared = owner.post(ALL, &body).await.expect(200);
    assert_eq!(declared["owner"], "owner");
    let other = agent.client().with(CALLER, "other");
    let path = "/v1/registrations/greeter/g-1";
    for reply in [
        other.post(ALL, &body).await,
        other.delete(path).await,
        other.post(&format!("{path}/drain"), &json!({})).await,
        other
            .put(&format!("{path}/ready"), &json!({"ready": false}))
            .await,
        other.post(&format!("{path}/beat"), &json!({})).await,
    ] {
        refused(&reply, 403, "not_yours");
    }
    let shown = other.get(path).await.expect(200);
    assert_eq!(shown["stage"], "Serving");
    assert_eq!(
        owner.delete(path).await.expect(200)["stage"],
        "Deregistered"
    );
}

#[tokio::test]
async fn what_is_not_registered_is_not_found() {
    let agent = TestAgent::start().await;
    let path = "/v1/registrations/greeter/g-1";
    for reply in [
        agent.client().get(path).await,
        agent.client().delete(path).await,
        agent
            .client()
            .post(&format!("{path}/drain"), &json!({}))
            .await,
        agent
            .client()
            .put(&format!("{path}/ready"), &json!({"ready": true}))
            .await,
        agent
            .client()
            .post(&format!("{path}/beat"), &json!({}))
            .await,
    ] {
        let text = refused(&reply, 404, "service_not_found");
        assert!(text.contains("greeter") && text.contains("g-1"), "{text}");
    }
    // What is gone is shown, and nothing but that can be done with it.
    let body = json!({"service": "greeter", "address": "10.0.0.8:50051", "id": "g-1"});
    agent.client().post(ALL, &body).await.expect(200);
    agent.client().delete(path).await.expect(200);
    for reply in [
        agent
            .client()
            .post(&format!("{path}/beat"), &json!({}))
            .await,
        agent
            .client()
            .put(&format!("{path}/ready"), &json!({"ready": true}))
            .await,
        agent
            .client()
            .post(&format!("{path}/drain"), &json!({}))
            .await,
    ] {
        let text = refused(&reply, 404, "service_not_found");
        assert!(text.contains("is deregistered: declare it again"), "{text}");
    }
    let bad = agent.client().get("/v1/registrations/greeter/%ff").await;
    refused(&bad, 400, "invalid_request");
}

#[tokio::test]
async fn bodies_about_a_registration_name_what_is_wrong_with_them() {
    let agent = TestAgent::start().await;
    let body = json!({"service": "greeter", "address": "10.0.0.8:50051", "id": "g-1"});
    agent.client().post(ALL, &body).await.expect(200);
    for (method, what, body, part) in [
        (
            Method::POST,
            "drain",
            json!({"grace": "0s"}),
            "grace must be greater than zero",
        ),
        (
            Method::POST,
            "drain",
            json!({"grace": 20}),
            "grace: invalid type: integer `20`, expected a duration such as",
        ),
        (
            Method::POST,
            "drain",
            json!({"grcae": "1s"}),
            "unknown field `grcae`",
        ),
        (Method::PUT, "ready", json!({}), "missing field `ready`"),
        (Method::PUT, "ready", json!({"ready": "no"}), "ready: "),
        (Method::POST, "beat", json!({"state": "well"}), "state: "),
    ] {
        let path = format!("/v1/registrations/greeter/g-1/{what}");
        let reply = agent.client().ask(method, &path, body.to_string()).await;
        let text = refused(&reply, 400, "invalid_request");
        assert!(text.contains(part), "{body}: {text}");
    }
    let shown = agent.client().get("/v1/registrations/greeter/g-1").await;
    assert_eq!(shown.expect(200)["stage"], "Serving");
}

#[tokio::test]
async fn what_is_shown_of_a_registration_is_what_its_readers_see() {
    let agent = TestAgent::start().await;
    let body = json!({"service": "greeter", "address": "10.0.0.8:50051", "id": "g-1"});
    let entry = agent.client().post(ALL, &body).await.expect(200);
    assert_eq!(entry["override"], json!(null));
    let record = agent.registry.subscribe("greeter").unwrap();
    let known = async || record.state().snapshot().len() == 1;
    eventually("registered", LONG, known).await;
    let record = record.state().snapshot().instances()[0].record_id();
    agent
        .registry
        .set_override(&record, sd_core::Override::Draining)
        .await
        .unwrap();
    let same = async || {
        let held = agent
            .client()
            .get("/v1/registrations/greeter/g-1")
            .await
            .expect(200);
        let read = agent.client().get("/v1/services/greeter").await.expect(200);
        held["override"] == "draining"
            && held["instance"]["ready"] == false
            && held["instance"] == read["instances"][0]
    };
    eventually("told", LONG, same).await;
}

#[tokio::test]
async fn a_field_that_is_wrong_is_named() {
    let agent = TestAgent::start().await;
    for (body, part) in [
        (
            json!({"port": 0}),
            "port: expected a number from 1 to 65535",
        ),
        (
            json!({"port": 70_000}),
            "port: invalid value: integer `70000`, expected a number from 1 to 65535",
        ),
        (
            json!({"port": 1, "chekcs": []}),
            "column 9: unknown field `chekcs`",
        ),
        (
            json!({"port": 1, "checks": [{"kind": "tcp", "adress": "h:1"}]}),
            "checks[0]: unknown field `adress`",
        ),
        (
            json!({"port": 1, "ttl": "48h"}),
            "ttl: 48h is none that this registry takes",
        ),
        (json!({"address": "127.1:80"}), "address: "),
        (
            json!({"address": "[fe80::1]:80"}),
            "address: [fe80::1]:80 is link-local",
        ),
        (json!({"address": "http://10.0.0.1:80"}), "address: "),
        (
            json!({"port": 1, "checks": [{"kind": "tcp"}, {"kind": "command", "command": ["true"]}]}),
            "checks[1]: this agent runs no programs as checks: use another kind, or set checks.commands",
        ),
        (json!({"port": 1, "app": "a"}), "app: "),
    ] {
        let mut body = body;
        body["service"] = "greeter".into();
        let reply = agent.client().post(ALL, &body).await;
        let text = refused(&reply, 400, "invalid_request");
        assert!(text.contains(part), "{body}: {text}");
    }
}

#[tokio::test]
async fn names_of_other_systems_are_reached_with_percent_signs() {
    let agent = TestAgent::start().await;
    let body = json!({"service": "users/v1/größe", "address": "10.0.0.8:50051", "id": "a b/c%d"});
    let reply = agent.client().post(ALL, &body).await;
    reply.expect(200);
    let path = reply.header("location");
    assert_eq!(
        path,
        "/v1/registrations/users%2Fv1%2Fgr%C3%B6%C3%9Fe/a%20b%2Fc%25d"
    );
    assert_eq!(agent.client().get(path).await.expect(200)["id"], "a b/c%d");
    let service = "/v1/services/users%2Fv1%2Fgr%C3%B6%C3%9Fe";
    let service = agent.client().get(service).await.expect(200);
    assert_eq!(service["instances"][0]["id"], "a b/c%d");
    assert_eq!(
        agent.client().delete(path).await.expect(200)["stage"],
        "Deregistered"
    );
}

#[tokio::test]
async fn a_request_is_refused_whose_caller_is_not_known() {
    let registrations = Registrations::new(Memory::new().connect());
    let (_lifecycle, told) = watch::channel(Lifecycle::Running);
    let api = router(ApiState::new(registrations, told, ApiConfig::default()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = HttpClient::new(listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, api).await });
    let body = declaration("greeter", "10.0.0.8:50051");
    for path in [ALL, "/register", "/drain", "/deregister"] {
        refused(&client.post(path, &body).await, 500, "internal");
    }
    server.abort();
}
