//! Peers that take places or memory on purpose, and those that come nevertheless.

use std::net::SocketAddr;
use std::time::Duration;

use sd_cluster::server::{Admin, ConfigService, Limits};
use sd_testing::Log;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::http::{TOKEN, operate};
use crate::raw::{CLOSE, FINAL, Raw, TEXT, request};
use crate::{started, within};

fn crowded(change: impl FnOnce(&mut Limits)) -> sd_cluster::server::Builder {
    let mut limits = Limits::default();
    change(&mut limits);
    ConfigService::builder()
        .limits(limits)
        .ping_every(Duration::from_secs(60))
}

/// Connections that have sent a part of a request.
async fn half_heads(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /v1/mod").await.unwrap();
        all.push(stream);
    }
    all
}

#[tokio::test]
async fn half_requests_lock_out_no_operator() {
    let (service, _) = started(ConfigService::builder()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = listener.local_addr().unwrap();
    service
        .serve_admin(listener, Admin::new().token(TOKEN).unwrap())
        .unwrap();
    let mut half = half_heads(api, 80).await;
    for _ in 0..3 {
        assert_eq!(operate(api, "GET /v1/modules", "").await.status, 200);
    }
    // The oldest ones have made room.
    let first = within("the first one is closed", half[0].read_u8()).await;
    first.unwrap_err();
    let log = Log::of_the_process().text();
    assert!(log.contains("places for operators are scarce"), "{log}");
}

/// Each is answered, and then keeps its connection: without the end of the last answer it would be a request.
#[tokio::test]
async fn connections_that_rest_lock_out_no_operator() {
    let (service, _) = started(ConfigService::builder()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = listener.local_addr().unwrap();
    service
        .serve_admin(listener, Admin::new().token(TOKEN).unwrap())
        .unwrap();
    let mut resting = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(api).await.unwrap();
        let request = "GET /v1/modules HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        let answered = within("an answer", stream.read_exact(&mut answer)).await;
        answered.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        resting.push(stream);
    }
    assert_eq!(operate(api, "GET /v1/modules", "").await.status, 200);
}

#[tokio::test]
async fn half_requests_lock_out_no_module_and_modules_that_are_there_stay() {
    let (_service, address) = started(crowded(|limits| limits.connections = 4)).await;
    let mut there = Raw::connect(address, "a").await;
    let _half = half_heads(address, 8).await;
    let _second = Raw::connect(address, "b").await;
    assert_eq!(there.follow("x").await, "x_MODULE_CONNECTED||0||[]");
}

#[tokio::test]
async fn one_address_cannot_have_all_places() {
    let limits = |limits: &mut Limits| (limits.connections, limits.connections_per_peer) = (4, 2);
    let (_service, address) = started(crowded(limits)).await;
    let _first = Raw::connect(address, "a").await;
    let _second = Raw::connect(address, "a").await;
    let mut third = TcpStream::connect(address).await.unwrap();
    let refused = within("a third one is refused", third.read_u8()).await;
    refused.unwrap_err();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(address).await.unwrap();
    other
        .write_all(request("?module_name=b").as_bytes())
        .await
        .unwrap();
    let mut answer = [0; 12];
    let answered = within("another address has a place", other.read_exact(&mut answer)).await;
    answered.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    let log = Log::of_the_process().text();
    assert!(log.contains("2 connections are from its address"), "{log}");
}

/// Begins a message of 4 MiB of which 3 are sent.
async fn half_message(address: SocketAddr) -> Raw {
    let mut raw = Raw::connect(address, "half").await;
    let mut begun = vec![FINAL | TEXT, 0x80 | 0x7f];
    begun.extend((4_u64 << 20).to_be_bytes());
    begun.extend([0; 4]);
    begun.resize(3 << 20, b'x');
    // Fails where the service has closed the connection meanwhile.
    let _ = raw.stream.write_all(&begun).await;
    raw
}

#[tokio::test]
async fn the_oldest_half_messages_make_room_and_a_whole_one_is_taken() {
    let (service, address) = started(crowded(|limits| limits.in_flight_bytes = 0)).await;
    let mut half = Vec::new();
    for _ in 0..8 {
        half.push(half_message(address).await);
    }
    let mut module = Raw::connect(address, "a").await;
    let padding = "x".repeat(3 << 20);
    let sent = format!(r#"{{"schema":{{}},"config":{{"padding":"{padding}"}}}}"#);
    let (before, answer) = module.ask("MODULE:SEND_CONFIG_SCHEMA", &sent).await;
    assert_eq!((answer.as_str(), before.len()), ("ok", 1));
    assert_eq!(service.configs("a").await.unwrap().len(), 1);
    let closed = half[0].next().await.unwrap();
    let code = 1013_u16.to_be_bytes();
    assert_eq!((closed.opcode, &closed.payload[..2]), (CLOSE, &code[..]));
    let log = Log::of_the_process().text();
    assert!(log.contains("others needed the memory"), "{log}");
}
