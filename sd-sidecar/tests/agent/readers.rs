//! Readers of streams that are slow, dead or many.

use std::net::SocketAddr;
use std::time::Duration;

use sd_core::memory::Memory;
use sd_testing::{LONG, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::api::refused;
use crate::common::sets::greeter;
use crate::common::{TestAgent, TestConfig};
use crate::streams::EVENTS;

/// A long poll that has to wait.
async fn long_poll(agent: &TestAgent) -> String {
    let service = agent.client().get("/v1/services/greeter").await.expect(200);
    let index = service["index"].as_str().unwrap();
    format!("/v1/services/greeter?wait=1ms&index={index}")
}

/// Whether one more may wait.
async fn has_room(agent: &TestAgent) -> bool {
    let path = long_poll(agent).await;
    agent.client().get(&path).await.status == 200
}

#[tokio::test]
async fn there_are_only_so_many_streams_and_one_that_ends_makes_room() {
    let config = TestConfig::with_api(|api| {
        api.most_streams = 2;
        api.heartbeat = Duration::from_millis(100);
    });
    let agent = TestAgent::start_at(Memory::new().connect(), config).await;
    let one = agent.client().events("/watch").await;
    let _other = agent.client().events(EVENTS).await;
    for path in ["/watch", EVENTS, &long_poll(&agent).await] {
        let reply = agent.client().get(path).await;
        let text = refused(&reply, 503, "too_many_streams");
        assert!(text.contains("2 streams"), "{text}");
        assert_eq!(reply.header("retry-after"), "1");
    }
    // A client that is killed.
    drop(one);
    eventually("free", LONG, async || has_room(&agent).await).await;
}

/// Registers something large again and again, so that what is told does not fit anywhere.
async fn change_often(agent: &TestAgent, times: u16) {
    let filler = "x".repeat(60 * 1024);
    let large = |id, port| greeter(id, port).with_metadata("filler", filler.clone());
    let guard = agent.registry.register(large("g-1", 1)).await.unwrap();
    for (id, port) in [("g-2", 2), ("g-3", 3), ("g-4", 4)] {
        let other = agent.registry.register(large(id, port)).await.unwrap();
        std::mem::forget(other);
    }
    for weight in 1..=times {
        guard
            .update(move |instance| instance.with_weight(weight))
            .await
            .unwrap();
        // As long as it takes to be seen, so that each one would be sent.
        let seen = async || {
            let service = agent.client().get("/v1/services/greeter").await.expect(200);
            service["instances"][0]["weight"] == weight
        };
        eventually("seen", LONG, seen).await;
    }
    // It must stay while its readers catch up.
    std::mem::forget(guard);
}

/// A connection that asks for a stream and has a small buffer.
async fn raw_reader(address: SocketAddr, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_slow_reader_skips_to_the_newest_set() {
    const CHANGES: u16 = 60;
    let agent = TestAgent::start().await;
    let mut slow = raw_reader(agent.address, EVENTS).await;
    change_often(&agent, CHANGES).await;
    let newest = format!("\"weight\":{CHANGES},");
    let (mut read, mut part) = (Vec::new(), vec![0; 64 * 1024]);
    let reading = async {
        loop {
            let count = slow.read(&mut part).await.unwrap();
            assert!(count > 0, "the stream has ended");
            read.extend_from_slice(&part[..count]);
            let text = String::from_utf8_lossy(&read);
            if let Some(at) = text.find(&newest)
                && text[at..].contains("\n\n")
            {
                return text.matches("event: snapshot").count();
            }
        }
    };
    let told = timeout(LONG, reading).await.unwrap();
    assert!(
        told < usize::from(CHANGES) * 2 / 3,
        "{told} of {CHANGES} sets were kept for a reader that did not read"
    );
}

#[tokio::test]
async fn a_reader_that_never_reads_is_ended_by_a_deadline_and_makes_room() {
    let mut config = TestConfig::with_api(|api| api.most_streams = 1);
    config.write_deadline = Duration::from_millis(500);
    let agent = TestAgent::start_at(Memory::new().connect(), config).await;
    let mut never = raw_reader(agent.address, EVENTS).await;
    let mut head = [0; 12];
    never.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    change_often(&agent, 50).await;
    eventually("ended", LONG, async || has_room(&agent).await).await;
    // What was sent before the end is still there to be read, and then the connection is over.
    let mut rest = Vec::new();
    drop(timeout(LONG, never.read_to_end(&mut rest)).await.unwrap());
}

/// Bytes of memory that this process has for itself.
fn private_memory() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let private = rollup.lines().filter(|line| line.starts_with("Private_"));
    let kilobytes =
        private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    kilobytes.sum::<usize>() * 1024
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_readers_cost_little_and_hear_of_a_change_soon() {
    const READERS: usize = 1000;
    let agent = TestAgent::start().await;
    let mut guards = Vec::new();
    for port in 1..=20 {
        let instance = greeter(&format!("g-{port:02}"), port);
        guards.push(agent.registry.register(instance).await.unwrap());
    }
    let (started, mut all_started) = tokio::sync::mpsc::channel(READERS);
    let (seen, mut all_seen) = tokio::sync::mpsc::channel(READERS);
    let before = private_memory();
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..READERS {
        let mut stream = raw_reader(agent.address, EVENTS).await;
        let (started, seen) = (started.clone(), seen.clone());
        readers.spawn(async move {
            let mut text = String::new();
            let mut part = vec![0; 4096];
            let mut started = Some(started);
            loop {
                let count = stream.read(&mut part).await.unwrap();
                assert!(count > 0, "the stream has ended");
                text.push_str(&String::from_utf8_lossy(&part[..count]));
                if text.contains("\"new\"") {
                    seen.send(Instant::now()).await.unwrap();
                    return stream;
                }
                if text.contains("g-20")
                    && let Some(started) = started.take()
                {
                    started.send(()).await.unwrap();
                    text = String::new();
                }
            }
        });
    }
    let starting = async {
        for _ in 0..READERS {
            all_started.recv().await.unwrap();
        }
    };
    timeout(LONG, starting).await.unwrap();
    let each = private_memory().saturating_sub(before) / READERS;
    let change = Instant::now();
    let instance = greeter("new", 100);
    guards.push(agent.registry.register(instance).await.unwrap());
    let mut took = Vec::new();
    let hearing = async {
        for _ in 0..READERS {
            took.push(all_seen.recv().await.unwrap() - change);
        }
    };
    timeout(LONG, hearing).await.unwrap();
    took.sort_unstable();
    let (median, p99) = (took[READERS / 2], took[READERS * 99 / 100]);
    println!(
        "{READERS} readers: {each} B each with their clients, a change after {median:?} (median), {p99:?} (p99)"
    );
    // Both ends are in this process.
    assert!(each < 100 * 1024, "{each} bytes for a reader");
    assert!(p99 < Duration::from_secs(5), "{p99:?}");
}
