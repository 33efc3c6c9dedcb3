//! Exhibitors before real servers: lists that change, and Exhibitors that are down, hang or answer nonsense.

#![cfg(feature = "exhibitor")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{
    LONG, TTL, close, event, eventually, instance, is_live_with, own_server, prefix, raw, server,
    until,
};
use sd_core::{ErrorKind, Registry};
use sd_zk::ZkConfig;
use server_programs::LocalServer;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

const LARGE: usize = 10 * 1024 * 1024;

/// What an Exhibitor does with a request.
#[derive(Clone, Debug)]
enum Does {
    Hangs,
    Answers(String),
    /// With a body of this many bytes.
    AnswersLong(usize),
}

struct Exhibitor {
    address: String,
    does: Arc<Mutex<Does>>,
    asked: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
    _serving: AbortOnDropHandle<()>,
}

impl Exhibitor {
    async fn that(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let does = Arc::new(Mutex::new(does));
        let [asked, sent] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let serving = serve(
            listener,
            Arc::clone(&does),
            Arc::clone(&asked),
            Arc::clone(&sent),
        );
        Self {
            address,
            does,
            asked,
            sent,
            _serving: AbortOnDropHandle::new(tokio::spawn(serving)),
        }
    }

    /// One that tells this server, as Exhibitor writes it for Curator.
    async fn telling(server: &str) -> Self {
        Self::that(list_of(server)).await
    }

    fn now_does(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn list_of(server: &str) -> Does {
    let server: SocketAddr = server.parse().unwrap();
    let (host, port) = (server.ip(), server.port());
    let list = format!("count=1&port={port}&server0={host}");
    Does::Answers(answer("200 OK", &list))
}

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}")
}

async fn serve(
    listener: TcpListener,
    does: Arc<Mutex<Does>>,
    asked: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
) {
    let mut connections = Vec::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (does, asked, sent) = (Arc::clone(&does), Arc::clone(&asked), Arc::clone(&sent));
        connections.push(AbortOnDropHandle::new(tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            assert_eq!(line, "GET /exhibitor/v1/cluster/list HTTP/1.1\r\n");
            while !line.trim().is_empty() {
                line.clear();
                stream.read_line(&mut line).await.unwrap();
            }
            asked.fetch_add(1, Ordering::Relaxed);
            let does = does.lock().unwrap().clone();
            // The client may hang up before the end.
            let _ = answer_with(stream.get_mut(), does, &sent).await;
        })));
    }
}

async fn answer_with(
    stream: &mut TcpStream,
    does: Does,
    sent: &AtomicUsize,
) -> std::io::Result<()> {
    match does {
        Does::Hangs => std::future::pending().await,
        Does::Answers(answer) => stream.write_all(answer.as_bytes()).await,
        Does::AnswersLong(length) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            let some = vec![b'x'; 16 * 1024];
            while sent.load(Ordering::Relaxed) < length {
                stream.write_all(&some).await?;
                sent.fetch_add(some.len(), Ordering::Relaxed);
            }
            Ok(())
        }
    }
}

/// An address at which nothing listens.
async fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

fn config<'a>(exhibitors: impl IntoIterator<Item = &'a str>) -> ZkConfig {
    ZkConfig::default()
        .with_exhibitors(exhibitors)
        .with_session_timeout(TTL)
}

fn connect(config: ZkConfig) -> Registry {
    sd_zk::connect(config).unwrap()
}

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn the_first_exhibitor_that_tells_servers_is_believed_whatever_those_before_it_do() {
    let mut exhibitors = Vec::new();
    for does in [
        Does::Hangs,
        Does::Answers("SSH-2.0-OpenSSH_9.2\r\n".to_owned()),
        Does::Answers(answer("404 Not Found", "nothing here")),
        Does::Answers(answer("200 OK", "<html></html>")),
        Does::Answers(answer("200 OK", "count=0&port=2181")),
        Does::AnswersLong(LARGE),
        list_of(&server()),
        list_of(&nowhere().await),
    ] {
        exhibitors.push(Exhibitor::that(does).await);
    }
    let down = nowhere().await;
    let addresses = exhibitors.iter().map(|one| one.address.as_str());
    let config = config(std::iter::once(down.as_str()).chain(addresses))
        .with_prefix(prefix())
        .with_request_timeout(Duration::from_secs(20));
    let registry = connect(config);
    registry.check().await.unwrap();
    let guard = registry.register(instance(1)).await.unwrap();
    assert_eq!(registry.list("greeter").await.unwrap().len(), 1);
    guard.deregister().await.unwrap();

    let asked: Vec<_> = exhibitors.iter().map(Exhibitor::asked).collect();
    assert_eq!(asked, [1, 1, 1, 1, 1, 1, 1, 0]);
    // Of a long answer hardly more is read than what the system has taken by then.
    let sent = exhibitors[5].sent.load(Ordering::Relaxed);
    assert!(sent < LARGE, "{sent}");
}

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn a_session_whose_server_is_gone_is_replaced_by_one_at_the_servers_that_are_told_now() {
    let mut old = own_server().await;
    let new = own_server().await;
    let exhibitor = Exhibitor::telling(&old.program().url()).await;
    let session = Duration::from_secs(30);
    let config = config([exhibitor.address.as_str()])
        .with_session_timeout(session)
        .with_exhibitor_interval(Duration::from_secs(1));
    let registry = connect(config);
    let mut guard = registry.register(instance(1)).await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    // It is asked again while all is well, and the session stays where it is.
    eventually("asked again", LONG, async || exhibitor.asked() > 2).await;
    exhibitor.now_does(list_of(&new.program().url()));
    let asked = exhibitor.asked();
    eventually("asked again", LONG, async || exhibitor.asked() > asked + 1).await;
    assert!(is_live_with(1)(&seen.state()));

    old.kill().unwrap();
    let killed = Instant::now();
    event(&mut guard, "lost").await;
    // Not only when the session must have ended.
    assert!(killed.elapsed() < session, "{:?}", killed.elapsed());
    event(&mut guard, "registered").await;
    until(&mut seen, "there again", is_live_with(1)).await;
    let operator = raw(&new.program().url()).await;
    let nodes = operator.list_children("/services/greeter").await.unwrap();
    assert_eq!(nodes.len(), 1);
    close(operator).await;
}

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn the_last_servers_that_were_told_are_kept_while_no_exhibitor_tells_any() {
    let mut server = own_server().await;
    let exhibitor = Exhibitor::telling(&server.program().url()).await;
    let registry = connect(config([exhibitor.address.as_str()]));
    let mut guard = registry.register(instance(1)).await.unwrap();
    event(&mut guard, "registered").await;
    exhibitor.now_does(Does::Answers(answer("200 OK", "count=0&port=2181")));
    // No session survives that, so that another one is made.
    server.restart_empty().await.unwrap();
    event(&mut guard, "registered").await;
    drop(exhibitor);
    server.restart_empty().await.unwrap();
    event(&mut guard, "registered").await;
}

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn servers_that_are_named_are_used_where_no_exhibitor_tells_any() {
    let (down, server) = (nowhere().await, server());
    let config = ZkConfig::new([&server]).with_exhibitors([&down]);
    connect(config).check().await.unwrap();
}

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn what_an_exhibitor_tells_goes_before_the_servers_that_are_named() {
    let (named, told, prefix) = (own_server().await, server(), prefix());
    let exhibitor = Exhibitor::telling(&told).await;
    let config = ZkConfig::new([&named.program().url()]).with_exhibitors([&exhibitor.address]);
    let registry = connect(config.with_prefix(&prefix));
    let _guard = registry.register(instance(1)).await.unwrap();
    let operator = raw(&told).await;
    let nodes = operator.list_children(&format!("{prefix}/greeter")).await;
    assert_eq!(nodes.unwrap().len(), 1);
    close(operator).await;
}

#[tokio::test]
async fn where_no_exhibitor_tells_servers_the_error_says_why_of_each_and_comes_in_time() {
    let hanging = Exhibitor::that(Does::Hangs).await;
    let empty = Exhibitor::that(Does::Answers(answer("200 OK", "count=0&port=2181"))).await;
    let down = nowhere().await;
    let limit = Duration::from_secs(6);
    let exhibitors = [&hanging.address, &empty.address, &down].map(String::as_str);
    let registry = connect(config(exhibitors).with_request_timeout(limit));
    let start = Instant::now();
    let error = registry.check().await.unwrap_err();
    assert!(start.elapsed() < limit, "{:?}", start.elapsed());
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let report = error.report().to_string();
    for (exhibitor, why) in exhibitors.into_iter().zip([
        "no answer within 1s",
        "it knows no server",
        "Connection refused",
    ]) {
        assert!(report.contains(&format!("{exhibitor}: {why}")), "{report}");
    }
}
