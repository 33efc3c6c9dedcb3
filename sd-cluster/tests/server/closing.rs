//! How connections end, from either side.

use std::time::Duration;

use sd_cluster::server::ConfigService;
use tokio::time::{Instant, timeout};

use crate::raw::{CLOSE, FINAL, Frame, Raw};
use crate::{service, until, until_gone};

#[tokio::test]
async fn every_close_is_repeated_and_takes_the_module_out_at_once() {
    let (service, address) = service().await;
    let mut reader = Raw::connect(address, "reader").await;
    assert_eq!(reader.follow("a").await, "a_MODULE_CONNECTED||0||[]");
    for code in [
        1000_u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 3000, 4000, 4999,
    ] {
        let mut raw = Raw::connect(address, "a").await;
        raw.ready("a", "10.0.0.1").await;
        assert!(reader.message().await.contains("10.0.0.1"));
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend(b"why");
        raw.frame(FINAL | CLOSE, &payload).await;
        assert_eq!(
            reader.message().await,
            "a_MODULE_CONNECTED||0||[]",
            "{code}"
        );
        let repeated = Frame {
            opcode: CLOSE,
            payload,
        };
        assert_eq!(raw.next().await, Some(repeated));
        assert_eq!(raw.next().await, None);
    }
    // Without a code, and without a close.
    let mut raw = Raw::connect(address, "a").await;
    raw.frame(FINAL | CLOSE, b"").await;
    let empty = Frame {
        opcode: CLOSE,
        payload: Vec::new(),
    };
    assert_eq!(raw.next().await, Some(empty));
    drop(Raw::connect(address, "a").await);
    until_gone(&service, "a").await;
}

#[tokio::test]
async fn a_hundred_clients_are_closed_at_once_and_in_order_also_those_that_do_not_answer() {
    let (service, address) = service().await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(Raw::connect(address, "a").await);
    }
    until(&service, "a", |module| module.connections == 100).await;
    let stopped = tokio::spawn({
        let service = service.clone();
        async move {
            let begin = Instant::now();
            service.stop().await;
            begin.elapsed()
        }
    });
    let (answering, silent) = clients.split_at_mut(50);
    for raw in answering {
        let close = raw.next().await.unwrap();
        assert_eq!(
            (close.opcode, &close.payload[..]),
            (CLOSE, &[0x03, 0xe8][..])
        );
        raw.frame(FINAL | CLOSE, &close.payload).await;
        assert_eq!(raw.next().await, None);
    }
    let took = timeout(Duration::from_secs(10), stopped)
        .await
        .unwrap()
        .unwrap();
    // One after another, those that are silent would take 50 s.
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert_eq!(silent.len(), 50);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    assert!(service.modules().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_service_that_is_dropped_stops() {
    let (service, address) = service().await;
    let mut raw = Raw::connect(address, "a").await;
    until(&service, "a", |module| module.connections == 1).await;
    drop(service);
    assert_eq!(raw.next().await.unwrap().opcode, CLOSE);
}

#[tokio::test]
async fn a_module_that_reads_nothing_holds_up_no_stop() {
    let (service, address) = service().await;
    let sent = r#"{"config":{}}"#;
    let mut slow = Raw::connect(address, "a").await;
    slow.ask("MODULE:SEND_CONFIG_SCHEMA", sent).await;
    let mut quick = Raw::connect(address, "a").await;
    quick.ask("MODULE:SEND_CONFIG_SCHEMA", sent).await;
    // More than the sockets' buffers and the queue hold.
    let padding = "x".repeat(1 << 20);
    for nth in 0..40 {
        let config = format!(r#"{{"nth":{nth},"padding":"{padding}"}}"#);
        service.set_config("a", &config, None).await.unwrap();
        quick.message().await;
    }
    // Without the stop, a peer that takes nothing is given up after three minutes here.
    let stopped = timeout(Duration::from_secs(20), service.stop()).await;
    stopped.expect("the service stops in time");
    drop(slow);
}

#[test]
fn the_sessions_of_a_runtime_that_has_ended_are_listed_no_longer() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().unwrap()
    };
    let (stays, ends) = (runtime(), runtime());
    let start = ConfigService::builder().start();
    let service = stays.block_on(start).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let address = ends.block_on(service.listen(any)).unwrap();
    let _raw = stays.block_on(async {
        let mut raw = Raw::connect(address, "a").await;
        raw.ready("a", "10.0.0.1").await;
        raw
    });
    drop(ends);
    stays.block_on(async {
        until_gone(&service, "a").await;
        assert!(service.routes().await.unwrap().is_empty());
        service.stop().await;
    });
}
