//! Registrations of an agent over real servers: through their death, their loss of data, and from one agent to the next.

use std::time::{Duration, SystemTime};

use sd_core::{Instance, Registry};
use sd_sidecar::daemon::registrations::{How, Identity, Registrations, Settings, Stage};
use sd_testing::{LONG, ServerProcess, ServerProgram, eventually, is_live_with, until};
use serde_json::{Value, json};
use server_programs::{Consul, Etcd, LocalServer, Redis};
use tokio::time::{Instant, sleep_until};

use crate::common::{TestAgent, TestConfig};
use crate::registrations::{declared, me, until_entry};

/// What each of the servers grants, and long enough for a busy machine.
const TTL: &str = "5s";
/// A record that is not renewed is gone after this, as servers end them only now and then.
const GONE_AFTER: Duration = Duration::from_secs(7);
const LIMIT: Duration = Duration::from_secs(10);

fn etcd(program: &Etcd) -> String {
    program.url().replacen("http://", "etcd://", 1) + "/services"
}

fn consul(program: &Consul) -> String {
    program.url().replacen("http://", "consul://", 1)
}

fn greeter() -> sd_sidecar::wire::Declaration {
    declared(json!({"service": "greeter", "address": "10.0.0.7:50051", "ttl": TTL}))
}

fn connect(url: &str) -> Registry {
    sd_any::connect(url).unwrap()
}

async fn through_an_outage_and_a_handover<P: ServerProgram>(
    mut server: ServerProcess<P>,
    url: String,
) {
    let folder = tempfile::tempdir().unwrap();
    let open = async || {
        Registrations::open(connect(&url), Settings::default(), folder.path())
            .await
            .unwrap()
    };
    // Down at the start.
    server.kill().unwrap();
    let first = open().await;
    let entry = first.register(&me(), greeter()).await.unwrap();
    assert_eq!(entry.stage, Stage::Init);
    assert!(entry.error.is_some());
    server.restart().await.unwrap();
    let is_serving =
        |entry: &sd_sidecar::daemon::registrations::Entry| entry.stage == Stage::Serving;
    until_entry(&first, "serving", is_serving).await;
    let reading = connect(&url);
    let mut readers = reading.subscribe("greeter").unwrap();
    let seen = until(&mut readers, "registered", is_live_with(1)).await;
    assert_eq!(seen.snapshot().instances()[0].record_id(), entry.record);

    // Back without its data.
    server.kill().unwrap();
    server.restart_empty().await.unwrap();
    let after = connect(&url);
    let mut readers_after = after.subscribe("greeter").unwrap();
    let seen = until(&mut readers_after, "back", is_live_with(1)).await;
    assert_eq!(seen.snapshot().instances()[0].record_id(), entry.record);
    until_entry(&first, "serving", is_serving).await;

    // The next agent goes on, and a reader is told nothing.
    let left = first.close(How::Keep, LIMIT).await;
    let over = Instant::now();
    assert!(left.is_empty(), "{left:?}");
    let second = open().await;
    let continued = until_entry(&second, "serving", is_serving).await;
    assert_eq!(continued.record, entry.record);
    // Longer than the record lives without the next agent.
    let mut told: Vec<Vec<Instance>> = Vec::new();
    let watching = async {
        loop {
            let state = readers_after.changed().await.unwrap();
            let set = state.snapshot().instances().iter();
            told.push(set.map(|one| one.as_ref().clone()).collect());
        }
    };
    tokio::select! {
        () = watching => {}
        () = sleep_until(over + GONE_AFTER) => {}
    }
    for set in &told {
        assert_eq!(set, &[continued.instance.as_ref().clone()], "{told:?}");
    }
    let left = second.close(How::Deregister, LIMIT).await;
    assert!(left.is_empty(), "{left:?}");
    let last = connect(&url);
    let mut readers = last.subscribe("greeter").unwrap();
    until(&mut readers, "gone", is_live_with(0)).await;
    for registry in [reading, after, last] {
        registry.close().await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn registrations_at_etcd_outlive_its_death_its_loss_of_data_and_their_agent() {
    let program = Etcd::from_env().unwrap();
    let url = etcd(&program);
    let server = ServerProcess::launch(program).await.unwrap();
    through_an_outage_and_a_handover(server, url).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn registrations_at_consul_outlive_its_death_its_loss_of_data_and_their_agent() {
    let program = Consul::from_env().unwrap();
    let url = consul(&program);
    let server = ServerProcess::launch(program).await.unwrap();
    through_an_outage_and_a_handover(server, url).await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn registrations_at_redis_outlive_its_death_its_loss_of_data_and_their_agent() {
    let program = Redis::from_env().unwrap();
    let url = program.url();
    let server = ServerProcess::launch(program).await.unwrap();
    through_an_outage_and_a_handover(server, url).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_name_that_consul_cannot_take_is_a_bad_request() {
    let program = Consul::from_env().unwrap();
    let url = consul(&program);
    let _server = ServerProcess::launch(program).await.unwrap();
    let agent = TestAgent::start_at(connect(&url), TestConfig::default()).await;
    let client = agent.client();
    for (name, in_path, status) in [
        ("\u{202e}abc", "%E2%80%AEabc", 400),
        ("a\u{a0}b", "a%C2%A0b", 400),
        ("\u{200b}", "%E2%80%8B", 400),
        (
            "größe ❤\u{fe0f}",
            "gr%C3%B6%C3%9Fe%20%E2%9D%A4%EF%B8%8F",
            200,
        ),
    ] {
        let body = json!({"service": name, "id": "g-1", "address": "10.0.0.7:50051"});
        client.post("/v1/registrations", &body).await.expect(status);
        let path = format!("/v1/services/{in_path}");
        client.get(&path).await.expect(status);
    }
}

/// An agent of the reference system takes an instance into account if it is passing, has an address and a port, and its environment is
/// the agent's. It looks for weight, name in DNS and namespace in the metadata, and for the cluster in a tag.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn in_consul_agents_of_the_reference_system_find_what_they_route_to() {
    let server = ServerProcess::launch(Consul::from_env().unwrap())
        .await
        .unwrap();
    let mut settings = Settings::default();
    settings.identity = Some(Identity {
        cluster: "cluster-a".to_owned(),
        env: "dev".to_owned(),
        zone: "idc-a-1".to_owned(),
        host_ip: "10.0.0.7".to_owned(),
        run_id: "run-1".to_owned(),
        started_at: SystemTime::now(),
        routes: None,
    });
    let registry = connect(&consul(server.program()));
    let registrations = Registrations::with_settings(registry.clone(), settings);
    let of_a_client = declared(json!({
        "service": "auth", "address": "10.0.0.7:9090", "weight": 100, "version": "v1",
        "app": {"app_id": "a-1", "app_instance_id": "r-1"},
        "metadata": {
            "app_id": "a-1", "env": "prod", "namespace": "shop", "dns": "auth.shop.svc.cluster.local", "protocol": "grpc",
            "route_prefixes": "/acme.auth.v1.AuthService/", "run_date": "2026-01-02T15:04:05+08:00",
        },
    }));
    let entry = registrations.register(&me(), of_a_client).await.unwrap();
    let plain = declared(json!({"service": "plain", "address": "10.0.0.7:1"}));
    registrations.register(&me(), plain).await.unwrap();
    let told = |service: &str| -> Value {
        let target = format!("/v1/health/service/{service}?passing&stale");
        let answer = server.program().request("GET", &target, "").unwrap();
        let told: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(told.as_array().unwrap().len(), 1, "{told}");
        told[0]["Service"].clone()
    };
    let auth = told("auth");
    assert_eq!(
        (&auth["Address"], &auth["Port"]),
        (&json!("10.0.0.7"), &json!(9090))
    );
    assert_eq!(auth["Tags"], json!(["cluster=cluster-a"]));
    let meta = &auth["Meta"];
    for (key, value) in [
        ("app_id", "a-1"),
        ("agent_id", "cluster-a:idc-a-1:10.0.0.7"),
        ("agent_run_id", "run-1"),
        ("agent_host_ip", "10.0.0.7"),
        ("namespace", "shop"),
        ("dns", "auth.shop.svc.cluster.local"),
        ("env", "prod"),
        ("zone", "idc-a-1"),
        ("weight", "100"),
        ("route_prefixes", "/acme.auth.v1.AuthService/"),
        ("version", "v1"),
        ("protocol", "grpc"),
        ("instance_id", entry.record.id.as_str()),
    ] {
        assert_eq!(meta[key], value, "{key}");
    }
    // When it was registered, and not what the client said.
    assert!(meta["run_date"].as_str().unwrap().ends_with('Z'), "{meta}");
    let plain = &told("plain")["Meta"];
    assert_eq!(plain["env"], "dev");
    assert_eq!(
        (&plain["namespace"], &plain["weight"]),
        (&json!("default"), &json!("1"))
    );
    assert_eq!(plain["dns"], "plain.default.svc.cluster.local");

    // A drain is maintenance mode, as there: such agents route there no more.
    let which = sd_sidecar::daemon::registrations::Selector::Port {
        service: "auth".to_owned(),
        port: 9090,
    };
    registrations.drain(&me(), &which, LONG).await.unwrap();
    let target = "/v1/health/service/auth?passing";
    assert_eq!(
        server
            .program()
            .request("GET", target, "")
            .unwrap()
            .body
            .trim(),
        "[]"
    );
    registrations.close(How::Deregister, LIMIT).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn what_an_agent_of_the_reference_system_registers_in_consul_is_an_instance_with_its_methods()
{
    let server = ServerProcess::launch(Consul::from_env().unwrap())
        .await
        .unwrap();
    let id = "0190d4a0-0000-7000-8000-000000000000";
    let theirs = json!({
        "ID": id, "Name": "auth", "Address": "10.0.0.9", "Port": 9090, "Tags": ["cluster=cluster-a"],
        "Meta": {"app_id": "a-1", "env": "prod", "namespace": "default", "weight": "100", "version": "v1",
            "route_prefixes": "/acme.auth.v1.AuthService/", "instance_id": id},
        "Checks": [{"CheckID": format!("service:{id}:agent-lease"), "TTL": "10s", "Status": "passing"}],
    });
    let register =
        server
            .program()
            .request("PUT", "/v1/agent/service/register", &theirs.to_string());
    assert_eq!(register.unwrap().status, 200);
    let registry = connect(&consul(server.program()));
    let mut readers = registry.subscribe("auth").unwrap();
    let seen = until(&mut readers, "registered", is_live_with(1)).await;
    let instance = &seen.snapshot().instances()[0];
    assert_eq!(instance.endpoint().to_string(), "10.0.0.9:9090");
    assert_eq!(instance.version(), Some("v1"));
    assert!(instance.is_ready());
    assert_eq!(
        instance.metadata()["route_prefixes"],
        "/acme.auth.v1.AuthService/"
    );
    assert_eq!(instance.metadata()["env"], "prod");
    registry.close().await.unwrap();
}

/// At its start, an agent of the reference system removes what an earlier run of it has registered: all that bears its id. Ours bears the
/// same id if its cluster, its zone and its host are called so. It never touches what it has not registered itself.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn beside_an_agent_of_the_reference_system_with_the_same_id_ours_leaves_its_records_and_keeps_its_own()
 {
    let server = ServerProcess::launch(Consul::from_env().unwrap())
        .await
        .unwrap();
    let theirs = json!({
        "ID": "theirs", "Name": "auth", "Address": "10.0.0.7", "Port": 9090, "Tags": ["cluster=cluster-a"],
        "Meta": {"env": "prod", "namespace": "default", "weight": "100", "version": "v1", "instance_id": "theirs",
            "agent_id": "cluster-a:idc-a-1:10.0.0.7", "agent_run_id": "their-run", "agent_host_ip": "10.0.0.7"},
        "Checks": [{"CheckID": "service:theirs:agent-lease", "TTL": "10m", "Status": "passing"}],
    });
    let put = |target: &str, body: &str| {
        let answer = server.program().request("PUT", target, body).unwrap();
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
    };
    put("/v1/agent/service/register", &theirs.to_string());
    let mut settings = Settings::default();
    settings.identity = Some(Identity {
        cluster: "cluster-a".to_owned(),
        env: "prod".to_owned(),
        zone: "idc-a-1".to_owned(),
        host_ip: "10.0.0.7".to_owned(),
        run_id: "our-run".to_owned(),
        started_at: SystemTime::now(),
        routes: None,
    });
    let registry = connect(&consul(server.program()));
    let registrations = Registrations::with_settings(registry, settings);
    let auth = declared(json!({"service": "auth", "address": "10.0.0.7:9090", "ttl": TTL}));
    registrations.register(&me(), auth).await.unwrap();
    // The ids at the agent of the runs that have registered there.
    let there = || {
        let services = server.program().request("GET", "/v1/agent/services", "");
        let services: Value = serde_json::from_str(&services.unwrap().body).unwrap();
        let services = services.as_object().unwrap().iter();
        let runs = services.map(|(id, service)| {
            let run = service["Meta"]["agent_run_id"].as_str().unwrap();
            (run.to_owned(), id.clone())
        });
        runs.collect::<std::collections::BTreeMap<_, _>>()
    };
    let before = there();
    assert_eq!(before.keys().collect::<Vec<_>>(), ["our-run", "their-run"]);

    // Their agent starts again.
    let ours = &before["our-run"];
    put(&format!("/v1/agent/service/deregister/{ours}"), "");
    assert_eq!(there().len(), 1);
    eventually("back", LONG, async || there() == before).await;

    registrations.close(How::Deregister, LIMIT).await;
    assert_eq!(there().keys().collect::<Vec<_>>(), ["their-run"]);
}
