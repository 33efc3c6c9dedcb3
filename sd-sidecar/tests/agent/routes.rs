//! What the agent tells gateways of the reference system, at a real Consul.

use std::path::Path;
use std::time::{Duration, SystemTime};

use sd_core::Registry;
use sd_sidecar::checks::Commands;
use sd_sidecar::daemon::registrations::{How, Identity, Registrations, Selector, Settings};
use sd_testing::{
    Fault, HttpProxy, HttpRequest, HttpRule, HttpState, LONG, ServerProcess, TcpProxy, eventually,
};
use serde_json::{Value, json};
use server_programs::{Consul, LocalServer};
use tokio::time::timeout;

use crate::registrations::{declared, me, until_entry};
use crate::store::{killed_after, once_free};

const FOLDER: &str = "routes/prod/default/auth/";

fn settings(host: &str) -> Settings {
    let mut settings = Settings::default();
    settings.identity = Some(Identity {
        cluster: "cluster-a".to_owned(),
        env: "prod".to_owned(),
        zone: "idc-a-1".to_owned(),
        host_ip: host.to_owned(),
        run_id: "run-1".to_owned(),
        started_at: SystemTime::now(),
        routes: Some("routes".to_owned()),
    });
    settings
}

fn connect(server: &ServerProcess<Consul>) -> Registry {
    sd_any::connect(&server.program().url().replacen("http://", "consul://", 1)).unwrap()
}

async fn agent(server: &ServerProcess<Consul>, host: &str, state: &Path) -> Registrations {
    let open = Registrations::open(connect(server), settings(host), state);
    open.await.unwrap()
}

/// What such a test changes behind the agent's back is a write to this path.
const KV: &str = "/v1/kv/";
/// Where the agent writes routes.
const WRITES: &str = "/v1/txn";

fn delete_all(server: &ServerProcess<Consul>) {
    let target = format!("{KV}{FOLDER}?recurse");
    let answer = server.program().request("DELETE", &target, "");
    assert_eq!(answer.unwrap().status, 200);
}

/// An agent whose requests pass through a proxy.
fn agent_behind(proxy: &str, verify_every: Duration) -> Registrations {
    let registry = sd_any::connect(&proxy.replacen("http://", "consul://", 1)).unwrap();
    let mut settings = settings("10.0.0.1");
    settings.verify_routes_every = verify_every;
    Registrations::with_settings(registry, settings)
}

async fn register(agent: &Registrations, host: &str, version: &str, methods: &[&str]) {
    let auth = declared(json!({
        "service": "auth", "address": format!("{host}:9090"), "version": version,
        "metadata": {"methods": methods.join(","), "protocol": "grpc"},
    }));
    agent.register(&me(), auth).await.unwrap();
}

fn auth() -> Selector {
    Selector::Port {
        service: "auth".to_owned(),
        port: 9090,
    }
}

/// The keys below the folder of the service, without it.
fn keys(server: &ServerProcess<Consul>) -> Vec<String> {
    let target = format!("/v1/kv/{FOLDER}?keys");
    let answer = server.program().request("GET", &target, "").unwrap();
    if answer.status == 404 {
        return Vec::new();
    }
    let keys: Vec<String> = serde_json::from_str(&answer.body).unwrap();
    let keys = keys.iter().map(|key| key.strip_prefix(FOLDER).unwrap());
    keys.map(str::to_owned).collect()
}

async fn until_keys(server: &ServerProcess<Consul>, expected: &[&str]) {
    eventually("these keys", LONG, async || keys(server) == expected).await;
}

fn value(server: &ServerProcess<Consul>, key: &str) -> Value {
    let target = format!("/v1/kv/{FOLDER}{key}?raw");
    let answer = server.program().request("GET", &target, "").unwrap();
    serde_json::from_str(&answer.body).unwrap()
}

fn put(server: &ServerProcess<Consul>, target: &str, body: &Value) {
    let answer = server.program().request("PUT", target, &body.to_string());
    assert_eq!(answer.unwrap().status, 200, "{target}");
}

/// The reference system refuses a version whose methods are others than before, and never takes a document back: its defect S4.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn routes_of_each_version_are_told_and_go_with_its_last_instance() {
    let server = ServerProcess::launch(Consul::from_env().unwrap())
        .await
        .unwrap();
    let (state_1, state_2) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = agent(&server, "10.0.0.1", state_1.path()).await;
    register(&one, "10.0.0.1", "v1", &["/acme.Auth/Login"]).await;
    until_keys(&server, &["current", "versions/v1"]).await;
    let mut current = value(&server, "current");
    assert!(
        current["updated_at"]
            .take()
            .as_str()
            .unwrap()
            .ends_with('Z')
    );
    assert_eq!(
        current,
        json!({
            "service": "auth", "version": "v1", "updated_at": null, "namespace": "default", "port": 9090,
            "protocol": "grpc", "prefixes": ["/acme.Auth/"], "exact_paths": ["/acme.Auth/Login"],
        })
    );
    let told = server
        .program()
        .request("GET", "/v1/health/service/auth", "");
    let told: Value = serde_json::from_str(&told.unwrap().body).unwrap();
    let reference = &told[0]["Service"]["Meta"]["route_config_ref"];
    assert_eq!(reference, "routes/prod/default/auth/current");

    // What registers nothing with methods has no routes.
    let plain = declared(json!({"service": "plain", "address": "10.0.0.1:1"}));
    one.register(&me(), plain).await.unwrap();
    // The next version, on another host.
    let two = agent(&server, "10.0.0.2", state_2.path()).await;
    register(
        &two,
        "10.0.0.2",
        "v2",
        &["/acme.Auth/Login", "/acme.Auth/Logout"],
    )
    .await;
    until_keys(&server, &["current", "versions/v1", "versions/v2"]).await;
    let paths = |key: &str| value(&server, key)["exact_paths"].clone();
    let both = json!(["/acme.Auth/Login", "/acme.Auth/Logout"]);
    assert_eq!(
        (paths("current"), &paths("versions/v2")),
        (both.clone(), &both)
    );
    assert_eq!(paths("versions/v1"), json!(["/acme.Auth/Login"]));
    assert_eq!(value(&server, "current")["version"], "v2");

    one.deregister(&me(), &auth()).await.unwrap();
    until_keys(&server, &["current", "versions/v2"]).await;
    assert_eq!(paths("current"), both);
    // One that hands over leaves them to the next agent, which takes them back.
    two.close(How::Keep, LONG).await;
    assert_eq!(keys(&server), ["current", "versions/v2"]);
    let next = agent(&server, "10.0.0.2", state_2.path()).await;
    let left = next.close(How::Deregister, LONG).await;
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(keys(&server), [] as [&str; 0]);
    one.close(How::Deregister, LONG).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn routes_that_an_agent_of_the_reference_system_has_told_stay_as_long_as_its_instances() {
    let server = ServerProcess::launch(Consul::from_env().unwrap())
        .await
        .unwrap();
    let theirs = json!({
        "ID": "theirs", "Name": "auth", "Address": "10.0.0.9", "Port": 9090,
        "Meta": {"env": "prod", "namespace": "default", "version": "v0", "agent_id": "cluster-a:idc-a-1:10.0.0.9"},
    });
    put(&server, "/v1/agent/service/register", &theirs);
    let document = json!({
        "service": "auth", "version": "v0", "updated_at": "2026-01-02T15:04:05Z", "namespace": "default", "port": 9090,
        "protocol": "grpc", "prefixes": ["/acme.Old/"], "exact_paths": ["/acme.Old/Login"],
    });
    put(&server, &format!("/v1/kv/{FOLDER}current"), &document);
    let state = tempfile::tempdir().unwrap();
    let ours = agent(&server, "10.0.0.1", state.path()).await;
    register(&ours, "10.0.0.1", "v1", &["/acme.Auth/Login"]).await;
    until_keys(&server, &["current", "versions/v1"]).await;
    let prefixes = || value(&server, "current")["prefixes"].clone();
    assert_eq!(prefixes(), json!(["/acme.Auth/", "/acme.Old/"]));
    ours.deregister(&me(), &auth()).await.unwrap();
    until_keys(&server, &["current"]).await;
    assert_eq!(prefixes(), json!(["/acme.Auth/", "/acme.Old/"]));
    put(&server, "/v1/agent/service/deregister/theirs", &json!({}));
    // The last one of all takes everything with it.
    register(&ours, "10.0.0.1", "v1", &["/acme.Auth/Login"]).await;
    until_keys(&server, &["current", "versions/v1"]).await;
    ours.close(How::Deregister, LONG).await;
    assert_eq!(keys(&server), [] as [&str; 0]);
}

async fn run_of_app(agent: &Registrations, version: &str, run: &str) {
    let auth = declared(json!({
        "service": "auth", "address": "10.0.0.1:9090", "version": version,
        "app": {"app_id": "auth", "app_instance_id": run},
        "metadata": {"methods": "/acme.Auth/Login", "protocol": "grpc"},
    }));
    agent.register(&me(), auth).await.unwrap();
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn routes_of_the_version_that_a_process_is_upgraded_to_take_the_place_of_the_others() {
    let server = ServerProcess::launch(Consul::from_env().unwrap())
        .await
        .unwrap();
    let state = tempfile::tempdir().unwrap();
    let agent = agent(&server, "10.0.0.1", state.path()).await;
    run_of_app(&agent, "v1", "run-1").await;
    until_keys(&server, &["current", "versions/v1"]).await;
    run_of_app(&agent, "v2", "run-2").await;
    until_keys(&server, &["current", "versions/v2"]).await;
    // And back.
    run_of_app(&agent, "v1", "run-3").await;
    until_keys(&server, &["current", "versions/v1"]).await;
    agent.close(How::Deregister, LONG).await;
    assert_eq!(keys(&server), [] as [&str; 0]);
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn routes_go_with_their_version_although_another_one_was_refused_at_the_start() {
    let server = ServerProcess::launch(Consul::from_env().unwrap())
        .await
        .unwrap();
    let state = tempfile::tempdir().unwrap();
    let mut lenient = settings("10.0.0.1");
    lenient.commands = Commands::Allowed;
    let before = Registrations::open(connect(&server), lenient, state.path());
    let before = before.await.unwrap();
    let checked = declared(json!({
        "service": "auth", "address": "10.0.0.1:1", "version": "v1", "ttl": "10m",
        "checks": [{"kind": "command", "command": ["true"]}],
        "metadata": {"methods": "/acme.Auth/Login"},
    }));
    before.register(&me(), checked).await.unwrap();
    until_keys(&server, &["current", "versions/v1"]).await;
    before.close(How::Keep, LONG).await;

    let agent = agent(&server, "10.0.0.1", state.path()).await;
    register(&agent, "10.0.0.1", "v2", &["/acme.Auth/Login"]).await;
    until_keys(&server, &["current", "versions/v1", "versions/v2"]).await;
    agent.deregister(&me(), &auth()).await.unwrap();
    until_keys(&server, &["current", "versions/v1"]).await;
    agent.close(How::Deregister, LONG).await;
}

/// As where neither host has a default route.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_agent_takes_no_instance_of_another_one_for_its_own_although_both_have_one_id() {
    let server = ServerProcess::launch(Consul::from_env().unwrap())
        .await
        .unwrap();
    let (state_1, state_2) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = agent(&server, "", state_1.path()).await;
    let two = agent(&server, "", state_2.path()).await;
    register(&one, "10.0.0.1", "v1", &["/acme.Auth/Login"]).await;
    register(&two, "10.0.0.2", "v1", &["/acme.Auth/Login"]).await;
    until_keys(&server, &["current", "versions/v1"]).await;
    one.close(How::Deregister, LONG).await;
    assert_eq!(keys(&server), ["current", "versions/v1"]);
    // Consul's agent tells the catalog a moment later.
    let catalog = connect(&server);
    let is_gone = async || catalog.list("auth").await.unwrap().len() == 1;
    eventually("gone", LONG, is_gone).await;
    two.close(How::Deregister, LONG).await;
    assert_eq!(keys(&server), [] as [&str; 0]);
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn more_versions_than_consul_changes_at_once_are_taken_back() {
    let server = ServerProcess::launch(Consul::from_env().unwrap())
        .await
        .unwrap();
    let state = tempfile::tempdir().unwrap();
    let agent = agent(&server, "10.0.0.1", state.path()).await;
    for port in 1..=70 {
        let auth = declared(json!({
            "service": "auth", "address": format!("10.0.0.1:{port}"), "version": format!("v{port}"),
            "metadata": {"methods": "/acme.Auth/Login", "protocol": "grpc"},
        }));
        agent.register(&me(), auth).await.unwrap();
    }
    eventually("71 keys", LONG, async || keys(&server).len() == 71).await;
    agent.close(How::Deregister, LONG).await;
    assert_eq!(keys(&server), [] as [&str; 0]);
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn routes_that_another_program_deletes_or_changes_are_told_again() {
    let server = ServerProcess::launch(Consul::from_env().unwrap())
        .await
        .unwrap();
    let every = Duration::from_millis(200);
    let agent = agent_behind(&server.program().url(), every);
    register(&agent, "10.0.0.1", "v1", &["/acme.Auth/Login"]).await;
    until_keys(&server, &["current", "versions/v1"]).await;
    delete_all(&server);
    until_keys(&server, &["current", "versions/v1"]).await;
    for key in ["current", "versions/v1"] {
        let changed = json!({"service": "auth", "namespace": "default", "exact_paths": ["/else"]});
        put(&server, &format!("{KV}{FOLDER}{key}"), &changed);
        let is_told = async || {
            let paths = value(&server, key)["exact_paths"].clone();
            paths == json!(["/acme.Auth/Login", "/else"])
        };
        eventually("told again", LONG, is_told).await;
    }
    // What is right is left alone.
    let before = value(&server, "current");
    tokio::time::sleep(every * 4).await;
    assert_eq!(value(&server, "current"), before);
    agent.close(How::Deregister, LONG).await;
    assert_eq!(keys(&server), [] as [&str; 0]);
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn routes_that_were_lost_while_consul_could_not_be_reached_are_told_again() {
    let server = ServerProcess::launch(Consul::from_env().unwrap())
        .await
        .unwrap();
    let proxy = TcpProxy::start(server.program().address()).await.unwrap();
    let url = format!("http://{}", proxy.address());
    // It is not time that brings them back.
    let agent = agent_behind(&url, Duration::from_secs(3600));
    let auth = declared(json!({
        "service": "auth", "address": "10.0.0.1:9090", "version": "v1", "ttl": "3s",
        "metadata": {"methods": "/acme.Auth/Login", "protocol": "grpc"},
    }));
    agent.register(&me(), auth).await.unwrap();
    until_keys(&server, &["current", "versions/v1"]).await;
    proxy.set(Fault::Cut);
    until_entry(&agent, "at risk", |entry| entry.error.is_some()).await;
    delete_all(&server);
    proxy.set(Fault::Pass);
    until_keys(&server, &["current", "versions/v1"]).await;
    agent.close(How::Deregister, LONG).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn routes_are_told_and_taken_back_although_the_answer_to_a_write_is_lost() {
    let server = ServerProcess::launch(Consul::from_env().unwrap())
        .await
        .unwrap();
    let proxy = HttpProxy::start(server.program().address()).await.unwrap();
    let agent = agent_behind(&proxy.url(), LONG);
    let lost = || HttpRule::new("PUT", WRITES).lose_answer().times(1);
    let is_lost =
        |request: &HttpRequest| request.path == WRITES && request.state == HttpState::Dropped;
    let lost_so_far = |requests: &[HttpRequest]| requests.iter().filter(|one| is_lost(one)).count();
    proxy.set_rules([lost()]);
    register(&agent, "10.0.0.1", "v1", &["/acme.Auth/Login"]).await;
    let first = proxy.seen(|requests| lost_so_far(requests) == 1);
    timeout(LONG, first).await.unwrap();
    assert_eq!(keys(&server), ["current", "versions/v1"]);
    // As the agent does not know that, it tells them again.
    let is_told = |requests: &[HttpRequest]| {
        let mut writes = requests.iter().filter(|request| request.path == WRITES);
        writes.any(|request| request.state == HttpState::Answered(200))
    };
    timeout(LONG, proxy.seen(is_told)).await.unwrap();
    proxy.set_rules([lost()]);
    agent.deregister(&me(), &auth()).await.unwrap();
    let second = proxy.seen(|requests| lost_so_far(requests) == 2);
    timeout(LONG, second).await.unwrap();
    assert_eq!(keys(&server), [] as [&str; 0]);
    // Told again, as it is not known that they are gone.
    register(&agent, "10.0.0.1", "v1", &["/acme.Auth/Logout"]).await;
    until_keys(&server, &["current", "versions/v1"]).await;
    let is_new = async || value(&server, "current")["exact_paths"] == json!(["/acme.Auth/Logout"]);
    eventually("the new ones alone", LONG, is_new).await;
    agent.close(How::Deregister, LONG).await;
    assert_eq!(keys(&server), [] as [&str; 0]);
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_service_whose_routes_cannot_be_written_holds_up_no_other() {
    let server = ServerProcess::launch(Consul::from_env().unwrap())
        .await
        .unwrap();
    let proxy = HttpProxy::start(server.program().address()).await.unwrap();
    // Longer than what follows is waited for.
    let url = format!("{}/?request_timeout=1m", proxy.url());
    let agent = agent_behind(&url, LONG);
    let stalls = HttpRule::new("PUT", WRITES).with_body("/stuck/");
    proxy.set_rules([stalls.delay(10 * LONG)]);
    // In the order of their names, it is the first.
    let stuck = declared(json!({
        "service": "auth", "address": "10.0.0.1:1", "version": "v1",
        "metadata": {"methods": "/acme.Auth/Login", "namespace": "stuck"},
    }));
    agent.register(&me(), stuck).await.unwrap();
    let waits = |requests: &[HttpRequest]| {
        let mut writes = requests.iter().filter(|request| request.path == WRITES);
        writes.any(|request| request.state == HttpState::Waiting)
    };
    timeout(LONG, proxy.seen(waits)).await.unwrap();
    register(&agent, "10.0.0.1", "v1", &["/acme.Auth/Login"]).await;
    until_keys(&server, &["current", "versions/v1"]).await;
    agent.deregister(&me(), &auth()).await.unwrap();
    until_keys(&server, &[]).await;
    agent.close(How::Deregister, Duration::from_secs(1)).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn routes_of_agents_that_were_killed_at_their_end_and_while_cleaning_up_are_taken_back_by_the_next_one()
 {
    let server = ServerProcess::launch(Consul::from_env().unwrap())
        .await
        .unwrap();
    let state = tempfile::tempdir().unwrap();
    let url = server.program().url().replacen("http://", "consul://", 1);
    let (its_url, its_state) = (url.clone(), state.path().to_owned());
    let written = std::sync::Arc::new(tokio::sync::Notify::new());
    let is_written = std::sync::Arc::clone(&written);
    let killed = killed_after(async move || {
        let registry = sd_any::connect(&its_url).unwrap();
        let open = Registrations::open(registry, settings("10.0.0.1"), &its_state);
        let agent = open.await.unwrap();
        register(&agent, "10.0.0.1", "v1", &["/acme.Auth/Login"]).await;
        is_written.notified().await;
        agent.note_end().await;
    });
    let waiting = async {
        until_keys(&server, &["current", "versions/v1"]).await;
        written.notify_one();
    };
    tokio::join!(killed, waiting);
    // The next one can withdraw the record alone, and is killed as well.
    let proxy = HttpProxy::start(server.program().address()).await.unwrap();
    let stalls = HttpRule::new("PUT", WRITES);
    proxy.set_rules([stalls.delay(10 * LONG)]);
    let (its_url, its_state) = (proxy.url(), state.path().to_owned());
    let seen = std::sync::Arc::new(tokio::sync::Notify::new());
    let is_seen = std::sync::Arc::clone(&seen);
    let killed = killed_after(async move || {
        let url = its_url.replacen("http://", "consul://", 1);
        let open = || {
            let registry = sd_any::connect(&url).unwrap();
            Registrations::open(registry, settings("10.0.0.1"), &its_state)
        };
        let cleaning = once_free(open).await;
        is_seen.notified().await;
        // The state is written once more.
        let plain = declared(json!({"service": "plain", "address": "10.0.0.1:1"}));
        cleaning.register(&me(), plain).await.unwrap();
    });
    let waiting = async {
        let waits = |requests: &[HttpRequest]| {
            let mut writes = requests.iter().filter(|request| request.path == WRITES);
            writes.any(|request| request.state == HttpState::Waiting)
        };
        timeout(LONG, proxy.seen(waits)).await.unwrap();
        seen.notify_one();
    };
    tokio::join!(killed, waiting);
    assert_eq!(keys(&server), ["current", "versions/v1"]);
    let open = || {
        let registry = sd_any::connect(&url).unwrap();
        Registrations::open(registry, settings("10.0.0.1"), state.path())
    };
    let next = once_free(open).await;
    assert_eq!(next.entries().len(), 1);
    until_keys(&server, &[]).await;
    let forgotten = async || {
        let written = std::fs::read_to_string(state.path().join("registrations.json"));
        !written.unwrap().contains("acme.Auth")
    };
    eventually("forgotten", LONG, forgotten).await;
    next.close(How::Deregister, LONG).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_close_that_is_let_go_of_takes_routes_back_nevertheless() {
    let server = ServerProcess::launch(Consul::from_env().unwrap())
        .await
        .unwrap();
    let proxy = HttpProxy::start(server.program().address()).await.unwrap();
    let agent = agent_behind(&proxy.url(), LONG);
    register(&agent, "10.0.0.1", "v1", &["/acme.Auth/Login"]).await;
    // The keys are there before the agent knows that.
    let is_told = |requests: &[HttpRequest]| {
        let mut writes = requests.iter().filter(|request| request.path == WRITES);
        writes.any(|request| request.state == HttpState::Answered(200))
    };
    timeout(LONG, proxy.seen(is_told)).await.unwrap();
    let slow = HttpRule::new("PUT", WRITES).delay(Duration::from_secs(1));
    proxy.set_rules([slow.times(1)]);
    let takes_back = |requests: &[HttpRequest]| {
        let mut writes = requests.iter().filter(|request| request.path == WRITES);
        writes.any(|request| request.state == HttpState::Waiting)
    };
    tokio::select! {
        biased;
        left = agent.close(How::Deregister, LONG) => panic!("{left:?}"),
        _ = proxy.seen(takes_back) => {}
    }
    until_keys(&server, &[]).await;
    agent.close(How::Deregister, LONG).await;
}
