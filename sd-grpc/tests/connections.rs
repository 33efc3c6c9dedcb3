//! What happens to one connection, and what the others have of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::echo::{EchoClient, Text};
use common::{Set, TestServer, eventually, ready, within};
use futures_util::StreamExt;
use futures_util::stream;
use sd_grpc::ChannelConfig;
use tokio::sync::oneshot;

#[tokio::test]
async fn a_request_stream_that_panics_fails_its_call_and_nothing_else() {
    let server = TestServer::start();
    let set = Set::of([server.instance()]);
    let channel = set.channel().build().unwrap();
    ready(&channel, 1).await;
    for _ in 0..2 {
        let (go, wait) = oneshot::channel::<()>();
        let texts = stream::iter([Text::new("a")]).chain(stream::once(async move {
            let _ = wait.await;
            panic!("a bug in the stream")
        }));
        let mut client = EchoClient::new(channel.clone());
        let joining = tokio::spawn(async move { client.join(texts).await });
        eventually("the call is in flight", || {
            channel.dump().endpoints[0].in_flight == 1
        })
        .await;
        drop(go);
        let failed = within("the call", joining).await.unwrap();
        assert!(failed.is_err(), "{failed:?}");
        let mut client = EchoClient::new(channel.clone());
        within("another call", client.say("hello")).await.unwrap();
    }
    assert_eq!(server.accepted(), 1, "the connection survived");
}

#[tokio::test]
async fn a_connector_that_panics_has_failed_and_is_asked_again() {
    let server = TestServer::start();
    let address = server.address;
    let dials = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dials);
    let connector = move |_| {
        let dial = counter.fetch_add(1, Ordering::SeqCst);
        async move {
            assert!(dial >= 2, "a bug in the connector");
            tokio::net::TcpStream::connect(address).await
        }
    };
    let mut config = ChannelConfig::default();
    config.connect_parallelism = 1;
    let set = Set::of([server.instance()]);
    let channel = set
        .channel()
        .config(config)
        .connector(connector)
        .build()
        .unwrap();
    ready(&channel, 1).await;
    assert_eq!(dials.load(Ordering::SeqCst), 3);
}
