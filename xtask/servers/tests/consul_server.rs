//! The test kit runs these Consul agents.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use sd_testing::{HttpProxy, HttpRule, HttpState, ServerProcess};
use server_programs::{Consul, LocalServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

/// No wait in these tests is longer.
const SOON: Duration = Duration::from_secs(30);
const MANAGEMENT: &str = "3f6dd4b2-6a34-4f0c-9a3a-0c8f2f0b7a55";

async fn launch(program: Consul) -> ServerProcess<Consul> {
    ServerProcess::launch(program).await.unwrap()
}

/// What an operator asks and gets, beside the runtime.
async fn ask(
    server: &ServerProcess<Consul>,
    method: &'static str,
    target: &str,
    body: &str,
) -> (u16, String) {
    let program = server.program().clone();
    let (target, body) = (target.to_owned(), body.to_owned());
    let asked = spawn_blocking(move || program.request(method, &target, &body));
    let answer = asked.await.unwrap().unwrap();
    (answer.status, answer.body)
}

async fn get(server: &ServerProcess<Consul>, target: &str) -> (u16, String) {
    ask(server, "GET", target, "").await
}

async fn put(server: &ServerProcess<Consul>, target: &str, body: &str) -> (u16, String) {
    ask(server, "PUT", target, body).await
}

/// What a client that knows no token gets.
async fn get_anonymously(address: std::net::SocketAddr, target: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {target} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Asks until the answer fits: agents hear from each other some time after they are ready.
async fn until(server: &ServerProcess<Consul>, target: &str, fits: impl Fn(u16, &str) -> bool) {
    let give_up_at = Instant::now() + SOON;
    loop {
        let (status, body) = get(server, target).await;
        if fits(status, &body) {
            return;
        }
        assert!(Instant::now() < give_up_at, "{target}: {status} {body}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn takes_writes_and_sessions_whenever_it_was_started() {
    let mut server = launch(Consul::from_env().unwrap()).await;
    let node = server.program().node().to_owned();
    let writes = async |server: &ServerProcess<Consul>| {
        let session = format!(r#"{{"Node": "{node}", "TTL": "10s"}}"#);
        let (status, body) = put(server, "/v1/session/create", &session).await;
        assert_eq!(status, 200, "{body}");
        let written = put(server, "/v1/kv/a", "1").await;
        assert_eq!(written, (200, "true".to_owned()));
    };
    writes(&server).await;

    server.kill().unwrap();
    let address = server.program().address();
    assert!(TcpStream::connect(address).await.is_err());
    server.restart().await.unwrap();
    assert_eq!(get(&server, "/v1/kv/a?raw").await, (200, "1".to_owned()));
    writes(&server).await;

    server.stop().await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(get(&server, "/v1/kv/a?raw").await, (200, "1".to_owned()));
    writes(&server).await;

    server.restart_empty().await.unwrap();
    assert_eq!(get(&server, "/v1/kv/a?raw").await.0, 404);
    writes(&server).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn is_silent_while_frozen_and_goes_on_afterwards() {
    let server = launch(Consul::from_env().unwrap()).await;
    server.freeze().unwrap();
    let silence = timeout(Duration::from_millis(300), get(&server, "/v1/kv/a")).await;
    assert!(silence.is_err(), "{silence:?}");
    server.thaw().unwrap();
    assert_eq!(get(&server, "/v1/kv/a").await.0, 404);
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn sessions_may_be_as_short_as_a_test_configures() {
    let program = Consul::from_env().unwrap();
    let server = launch(program.with_config(r#"session_ttl_min = "1s""#)).await;
    let created = put(&server, "/v1/session/create", r#"{"TTL": "1s"}"#).await;
    assert_eq!(created.0, 200, "{created:?}");
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn with_acl_only_the_management_token_sees_and_writes() {
    let program = Consul::from_env().unwrap().with_acl(MANAGEMENT);
    let mut server = launch(program).await;
    let nodes = "/v1/catalog/nodes";
    assert!(
        get(&server, nodes)
            .await
            .1
            .contains(server.program().node())
    );
    let answer = get_anonymously(server.program().address(), nodes).await;
    assert!(answer.ends_with("\r\n\r\n[]"), "{answer}");
    server.restart_empty().await.unwrap();
    assert_eq!(put(&server, "/v1/kv/a", "1").await.0, 200);
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_client_agent_loses_its_services_with_its_data() {
    let server = launch(Consul::from_env().unwrap()).await;
    let program = Consul::from_env().unwrap();
    let mut agent = launch(program.client_of(server.program())).await;
    let service = r#"{"Name": "web", "Port": 80}"#;
    assert_eq!(
        put(&agent, "/v1/agent/service/register", service).await.0,
        200
    );
    let web = "/v1/health/service/web?passing";
    until(&server, web, |_, body| body.contains(r#""web""#)).await;
    agent.restart().await.unwrap();
    assert!(
        get(&agent, "/v1/agent/services")
            .await
            .1
            .contains(r#""web""#)
    );
    agent.restart_empty().await.unwrap();
    assert_eq!(get(&agent, "/v1/agent/services").await.1, "{}");
    until(&server, web, |_, body| body == "[]").await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_client_agent_knows_no_leader_once_its_server_is_gone() {
    let mut server = launch(Consul::from_env().unwrap()).await;
    let program = Consul::from_env().unwrap();
    let agent = launch(program.client_of(server.program())).await;
    assert_eq!(put(&agent, "/v1/kv/a", "1").await.0, 200);
    assert_eq!(get(&server, "/v1/kv/a?raw").await.1, "1");
    server.kill().unwrap();
    until(&agent, "/v1/kv/a?raw", |status, _| status == 500).await;
    server.restart().await.unwrap();
    until(&agent, "/v1/kv/a?raw", |status, body| {
        (status, body) == (200, "1")
    })
    .await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn two_datacenters_answer_for_each_other() {
    let first = launch(Consul::from_env().unwrap()).await;
    let program = Consul::from_env().unwrap();
    let second = launch(program.in_datacenter("dc2", &[first.program()])).await;
    let node = second.program().node().to_owned();
    let seen = move |status: u16, body: &str| status == 200 && body.contains(&node);
    until(&first, "/v1/catalog/nodes?dc=dc2", seen).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_http_proxy_counts_blocking_queries_and_answers_for_the_agent() {
    let server = launch(Consul::from_env().unwrap()).await;
    let proxy = HttpProxy::start(server.program().address()).await.unwrap();
    let address = proxy.address();
    let index = {
        let answer = get_anonymously(address, "/v1/health/service/web").await;
        let header = answer
            .lines()
            .find_map(|line| line.strip_prefix("X-Consul-Index: "));
        header.unwrap().to_owned()
    };
    let target = format!("/v1/health/service/web?index={index}&wait=60s");
    let query = tokio::spawn(async move { get_anonymously(address, &target).await });
    let waiting =
        proxy.seen(|requests| requests.iter().any(|seen| seen.state == HttpState::Waiting));
    timeout(SOON, waiting).await.unwrap();
    let service = r#"{"Name": "web", "Address": "10.0.0.1", "Port": 80}"#;
    let registered = put(&server, "/v1/agent/service/register", service).await;
    assert_eq!(registered.0, 200, "{registered:?}");
    // An agent that has just started may answer for another reason first.
    let mut answer = timeout(SOON, query).await.unwrap().unwrap();
    let told = async {
        while !answer.contains(r#""Address":"10.0.0.1""#) {
            answer = get_anonymously(address, "/v1/health/service/web").await;
        }
    };
    timeout(SOON, told).await.unwrap();

    let refusal = HttpRule::new("GET", "/v1/health/").answer(429, "").times(1);
    proxy.set_rules([refusal.header("Retry-After", "1")]);
    let refused = get_anonymously(address, "/v1/health/service/web").await;
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    let granted = get_anonymously(address, "/v1/health/service/web").await;
    assert!(granted.starts_with("HTTP/1.0 200 "), "{granted}");
}
