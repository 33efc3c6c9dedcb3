//! Peers that are gone without a word, and peers that do not read.

use std::time::Duration;

use sd_cluster::server::ConfigService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use crate::raw::{FINAL, PING, PONG, Raw};
use crate::{started, until};

const PING_EVERY: Duration = Duration::from_secs(1);

fn builder() -> sd_cluster::server::Builder {
    ConfigService::builder().ping_every(PING_EVERY)
}

#[tokio::test]
async fn a_ghost_is_removed_after_three_periods_and_who_answers_stays() {
    let (service, address) = started(builder()).await;
    let mut lively = Raw::connect(address, "reader").await;
    lively.follow("ghost").await;
    let mut ghost = Raw::connect(address, "ghost").await;
    ghost.ready("ghost", "10.0.0.1").await;
    let began = Instant::now();
    let mut lists = Vec::new();
    while lists
        .last()
        .is_none_or(|list: &String| !list.ends_with("||[]"))
    {
        let frame = lively.next().await.unwrap();
        if frame.opcode == PING {
            lively.frame(FINAL | PONG, &frame.payload).await;
        } else {
            lists.push(String::from_utf8(frame.payload).unwrap());
        }
    }
    // It was told of once, and taken out once.
    assert_eq!(lists.len(), 2, "{lists:?}");
    let took = began.elapsed();
    assert!(took >= 2 * PING_EVERY, "{took:?}");
    assert!(took < 20 * PING_EVERY, "{took:?}");
    assert_eq!(service.module("reader").await.unwrap().connections, 1);
}

#[tokio::test]
async fn a_reader_that_reads_nothing_delays_no_other_and_gets_the_newest_when_it_does() {
    let (service, address) = started(builder().ping_every(Duration::from_secs(60))).await;
    let mut slow = Raw::connect(address, "a").await;
    let sent = r#"{"config":{}}"#;
    slow.ask("MODULE:SEND_CONFIG_SCHEMA", sent).await;
    let mut quick = Raw::connect(address, "a").await;
    quick.ask("MODULE:SEND_CONFIG_SCHEMA", sent).await;
    // More than the sockets' buffers hold.
    let padding = "x".repeat(1 << 20);
    for nth in 0..40 {
        let config = format!(r#"{{"nth":{nth},"padding":"{padding}"}}"#);
        service.set_config("a", &config, None).await.unwrap();
        let told = quick.message().await;
        assert!(told.contains(&format!("\"nth\":{nth},")));
    }
    let (mut told, mut last) = (0, String::new());
    while !last.contains("\"nth\":39,") {
        last = slow.message().await;
        told += 1;
    }
    // The rest was left out.
    assert!(told < 40, "{told}");
}

#[tokio::test]
async fn a_client_that_never_finishes_its_request_is_given_up() {
    let (service, address) = started(builder()).await;
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let begun = Instant::now();
    let mut byte = [0];
    loop {
        // A byte now and then does not help.
        let sent = stream.write_all(b"G").await;
        let read = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut byte)).await;
        if sent.is_err() || matches!(read, Ok(Ok(0) | Err(_))) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(25));
        sleep(Duration::from_millis(100)).await;
    }
    let _other = Raw::connect(address, "a").await;
    until(&service, "a", |module| module.connections == 1).await;
}
