//! Clients that are hostile or broken, against the program.

use std::time::Duration;

use http::Method;
use rustix::process::Signal;
use sd_core::RegistryConfig;
use sd_testing::{LONG, required_env};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::common::program::{AgentProcess, WITHOUT_OPTIONS};

async fn connect(agent: &AgentProcess) -> TcpStream {
    TcpStream::connect(agent.address()).await.unwrap()
}

/// All that the agent sends until it ends the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = timeout(LONG, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the agent ends the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

const GET: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[tokio::test]
async fn a_head_that_comes_slowly_or_never_ends_its_connection() {
    let agent = AgentProcess::start(&WITHOUT_OPTIONS).await;
    let begin = Instant::now();
    let mut silent = connect(&agent).await;
    let mut slow = connect(&agent).await;
    let mut idle = connect(&agent).await;
    idle.write_all(GET).await.unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost: local")
        .await
        .unwrap();
    let dripping = async {
        let mut part = [0; 1024];
        loop {
            // A byte now and then does not keep it.
            tokio::select! {
                read = slow.read(&mut part) => if read.unwrap_or(0) == 0 { return },
                () = tokio::time::sleep(Duration::from_millis(500)) => {
                    if slow.write_all(b"x").await.is_err() { return }
                }
            }
        }
    };
    timeout(LONG, dripping).await.expect("a slow head ends");
    assert_eq!(rest(&mut silent).await, "");
    // One that rests stays.
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let answers = rest(&mut idle).await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
    assert!(
        begin.elapsed() > Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
    agent.client().get("/healthz").await.expect(200);
}

#[tokio::test]
async fn what_is_too_long_or_no_http_is_refused() {
    let agent = AgentProcess::start(&["--limits-body", "1000"]).await;
    let long = "x".repeat(20_000);
    for (request, answer) in [
        (
            format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
            "HTTP/1.1 431",
        ),
        (
            format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\n\r\n"),
            "HTTP/1.1 431",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n",
                "x: y\r\n".repeat(100)
            ),
            "HTTP/1.1 431",
        ),
        (
            "POST /register HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5000\r\n\r\n".to_owned(),
            "HTTP/1.1 413",
        ),
        (
            format!(
                "POST /register HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n1000\r\n{}\r\n0\r\n\r\n",
                "x".repeat(0x1000)
            ),
            "HTTP/1.1 413",
        ),
        (
            "\u{16}\u{3}\u{1} no http\r\n\r\n".to_owned(),
            "HTTP/1.1 400",
        ),
    ] {
        let mut stream = connect(&agent).await;
        // It may answer and end before all is sent.
        let _ = stream.write_all(request.as_bytes()).await;
        let told = rest(&mut stream).await;
        assert!(told.starts_with(answer), "{request:.80}: {told}");
    }
    agent.client().get("/healthz").await.expect(200);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so_and_places_come_free() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let unix = format!("unix:{}", socket.display());
    let agent = AgentProcess::start(&["--limits-connections", "3", "--listen", &unix]).await;
    let client = agent.client();
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = client.events("/watch").await;
        stream.event_named("connected").await;
        streams.push(stream);
    }
    let mut refused = connect(&agent).await;
    refused.write_all(GET).await.unwrap();
    let told = rest(&mut refused).await;
    assert!(
        told.starts_with("HTTP/1.1 503") && told.contains("too_many_connections"),
        "{told}"
    );
    // Those of the Unix socket are counted apart, so that the agent can be looked at and stopped.
    let mut own = tokio::net::UnixStream::connect(&socket).await.unwrap();
    own.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut metrics = String::new();
    own.read_to_string(&mut metrics).await.unwrap();
    assert!(
        metrics.contains("sd_agent_refused_total{reason=\"connections\"} 1"),
        "{metrics}"
    );
    assert!(metrics.contains("sd_agent_streams 3"), "{metrics}");
    drop(streams);
    let freed = async {
        loop {
            let mut stream = connect(&agent).await;
            stream
                .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                .await
                .unwrap();
            if rest(&mut stream).await.starts_with("HTTP/1.1 200") {
                return;
            }
        }
    };
    timeout(LONG, freed).await.expect("a place is free");
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_end_at_a_stop_all_the_same() {
    let agent = AgentProcess::start(&["--limits-streams", "2"]).await;
    let client = agent.client();
    let mut first = client.events("/watch").await;
    let _second = client.events("/v1/services/greeter/events").await;
    assert_eq!(
        client.get("/watch").await.expect(503)["code"],
        "too_many_streams"
    );
    agent.signal(Signal::TERM);
    first.event_named("disconnected").await;
    let (status, log) = agent.end().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
}

/// A stop waits for no reader that reads nothing.
#[tokio::test]
async fn a_reader_that_reads_nothing_holds_up_no_stop() {
    let agent = AgentProcess::start(&WITHOUT_OPTIONS).await;
    let mut deaf = connect(&agent).await;
    deaf.write_all(b"GET /watch HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut half = connect(&agent).await;
    half.write_all(b"POST /register HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n")
        .await
        .unwrap();
    agent.client().get("/healthz").await.expect(200);
    let begin = Instant::now();
    let (status, log) = agent.stop().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn a_caller_that_asks_too_often_is_refused_for_a_while_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let unix = format!("unix:{}", socket.display());
    let agent =
        AgentProcess::start(&["--limits-requests-per-second", "5", "--listen", &unix]).await;
    let mut stream = connect(&agent).await;
    let asking = b"GET /v1/registrations HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(&asking.repeat(200)).await.unwrap();
    assert!(answers(&mut stream, 200).await > 0);
    let mut other = tokio::net::UnixStream::connect(&socket).await.unwrap();
    other
        .write_all(
            b"GET /v1/registrations HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        )
        .await
        .unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let let_in = async {
        loop {
            let reply = agent.client().get("/v1/registrations").await;
            if reply.status == 200 {
                return;
            }
            assert_eq!(reply.expect(429)["code"], "too_many_requests");
            assert_eq!(reply.header("retry-after"), "1");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(LONG, let_in)
        .await
        .expect("the caller is let in again");
}

/// All processes of a host are one caller where there are no tokens, and one of them is what restarts an agent that does not answer.
#[tokio::test]
async fn a_flood_takes_no_turn_of_what_watches_over_the_agent() {
    let agent = AgentProcess::start(&["--limits-requests-per-second", "1"]).await;
    let client = agent.client();
    let flood = async { while client.get("/v1/registrations").await.status != 429 {} };
    timeout(LONG, flood).await.expect("it is refused");
    for _ in 0..20 {
        client.get("/healthz").await.expect(200);
        client.get("/readyz").await.expect(200);
    }
    let metrics = client.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    // They are no way around the limit.
    let long = "x".repeat(1_000_000);
    let padded = async {
        while client
            .ask(Method::GET, "/healthz", long.clone())
            .await
            .status
            != 429
        {}
    };
    timeout(LONG, padded).await.expect("it is refused");
}

#[tokio::test]
async fn what_browsers_ask_before_a_request_counts_as_well() {
    let agent = AgentProcess::start(&[
        "--limits-requests-per-second",
        "5",
        "--origins",
        "https://admin.example",
    ])
    .await;
    let preflight =
        b"OPTIONS /register HTTP/1.1\r\nhost: localhost\r\norigin: https://admin.example\r\n\
        access-control-request-method: POST\r\n\r\n";
    let mut stream = connect(&agent).await;
    stream.write_all(&preflight.repeat(50)).await.unwrap();
    assert!(answers(&mut stream, 50).await > 0);
}

#[tokio::test]
async fn what_a_caller_without_a_token_asks_for_leaves_web_pages_their_turn() {
    let agent = AgentProcess::start(&[
        "--limits-requests-per-second",
        "1",
        "--origins",
        "https://admin.example",
    ])
    .await;
    let client = agent.client();
    // A body that counts as many requests, and is let in because nothing else was asked for within a second.
    let mut long = connect(&agent).await;
    let body = vec![b' '; 1024 * 1024];
    let head = "POST /register HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 1048576\r\n\r\n";
    long.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    long.write_all(&body).await.unwrap();
    let answer = rest(&mut long).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    client.get("/v1/registrations").await.expect(429);
    let preflight = client
        .with("origin", "https://admin.example")
        .with("access-control-request-method", "POST");
    let asked = preflight.ask(Method::OPTIONS, "/register", "").await;
    assert_eq!(asked.status, 204, "{asked:?}");
}

/// Sends requests as fast as it can for `time`, `at_once` on each of 32 connections. Gives how many were answered.
async fn flood(
    agent: &AgentProcess,
    request: &'static [u8],
    at_once: usize,
    time: Duration,
) -> usize {
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..32 {
        let address = agent.address();
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let mut answered = 0;
            while Instant::now() < end {
                stream.write_all(&request.repeat(at_once)).await.unwrap();
                answered += at_once;
                answers(&mut stream, at_once).await;
            }
            answered
        });
    }
    tasks.join_all().await.into_iter().sum()
}

/// Reads so many answers. Gives how many of them are refusals because there are too many requests.
async fn answers(stream: &mut TcpStream, count: usize) -> usize {
    let (mut heads, mut refusals) = (Count::of(b"HTTP/1.1 "), Count::of(b"HTTP/1.1 429"));
    let mut part = vec![0; 64 * 1024];
    while heads.found < count {
        let read = timeout(LONG, stream.read(&mut part)).await.unwrap();
        let read = read.unwrap();
        assert!(read > 0, "the agent has ended the connection");
        heads.add(&part[..read]);
        refusals.add(&part[..read]);
    }
    refusals.found
}

/// Counts a text in what comes in parts.
struct Count {
    text: &'static [u8],
    /// The end of what was read, which may be the begin of the text.
    rest: Vec<u8>,
    found: usize,
}

impl Count {
    fn of(text: &'static [u8]) -> Self {
        Self {
            text,
            rest: Vec::new(),
            found: 0,
        }
    }

    fn add(&mut self, part: &[u8]) {
        self.rest.extend(part);
        let length = self.text.len();
        self.found += self
            .rest
            .windows(length)
            .filter(|one| *one == self.text)
            .count();
        self.rest
            .drain(..self.rest.len().saturating_sub(length - 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_flood_of_requests_stops_no_renewal() {
    let server = required_env("SD_TEST_ETCD").unwrap();
    let corner = sd_core::Incarnation::random();
    let registry = format!(
        "{}/agent-{corner}",
        server.replacen("http://", "etcd://", 1)
    );
    let agent = AgentProcess::start(&[
        "--registry",
        &registry,
        "--log-access=false",
        "--limits-requests-per-second=1000000",
    ])
    .await;
    let client = agent.client();
    for id in 0..100 {
        let one = json!({"service": "greeter", "id": format!("i-{id}"), "address": format!("127.0.0.1:{}", 20_000 + id)});
        client.post("/v1/registrations", &one).await.expect(200);
    }
    let reading = sd_any::connect_with(&registry, RegistryConfig::default()).unwrap();
    let mut seen = reading.subscribe("greeter").unwrap();
    let all = |state: &sd_core::State| state.snapshot().len() == 100;
    sd_testing::until(&mut seen, "registered", all).await;
    let watching = tokio::spawn(async move {
        loop {
            let state = seen.changed().await.unwrap();
            assert_eq!(state.snapshot().len(), 100, "{state:?}");
            assert!(state.snapshot().held().is_empty());
        }
    });
    // Each for longer than a record lives without being renewed, and without the limit that would spare the agent most of it: long answers,
    // then cheap requests.
    let list = b"GET /v1/registrations HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let lists = flood(&agent, list, 2, Duration::from_secs(15)).await;
    let wrong = b"POST /register HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}";
    let wrongs = flood(&agent, wrong, 16, Duration::from_secs(15)).await;
    eprintln!("{lists} lists and {wrongs} wrong requests were answered");
    assert!(!watching.is_finished(), "{:?}", watching.await);
    watching.abort();
    let metrics = client.get("/metrics").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    let losses = metrics
        .lines()
        .filter(|line| line.contains("event=\"lost\""))
        .count();
    assert_eq!(losses, 0, "{metrics}");
    let (status, log) = agent.stop().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
}
