//! Calls that wait for an endpoint: how long, how many, and what ends it.

mod common;

use std::time::Duration;

use common::echo::EchoClient;
use common::{Set, Silent, TestServer, eventually, within};
use sd_grpc::ChannelConfig;
use tonic::Code;

#[tokio::test]
async fn a_call_that_waits_for_a_full_server_fails_when_the_server_goes() {
    let server = TestServer::configured(
        |_| std::future::pending(),
        |server| server.max_concurrent_streams(1),
    );
    let mut config = ChannelConfig::default();
    config.max_connections = 1;
    let set = Set::of([server.instance()]);
    let channel = set.channel().config(config).build().unwrap();
    let mut client = EchoClient::new(channel.clone());
    let first = tokio::spawn(async move { client.say("hello").await });
    eventually("the first call arrives", || server.calls() == 1).await;
    // Neither has a deadline.
    let mut client = EchoClient::new(channel.clone());
    let second = tokio::spawn(async move { client.say("hello").await });
    eventually("the second call waits", || channel.dump().calls == 2).await;

    set.set([]);
    let status = within("the second call fails", second)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().contains("no instance is registered"),
        "{status}"
    );
    first.abort();
}

#[tokio::test]
async fn more_calls_than_may_wait_are_refused() {
    let mut config = ChannelConfig::default();
    config.max_waiting = 2;
    let channel = Silent::channel().config(config).build().unwrap();
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let mut client = EchoClient::new(channel.clone());
            tokio::spawn(async move { client.say("hello").await })
        })
        .collect();
    eventually("two calls wait", || channel.dump().calls == 2).await;
    let status = EchoClient::new(channel).say("hello").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    for call in waiting {
        let status = within("waiting is capped", call)
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
    }
}

#[tokio::test]
async fn waiting_may_be_without_limit() {
    let server = TestServer::start();
    let mut config = ChannelConfig::default();
    config.connect_wait = Duration::MAX;
    let set = Set::of([server.instance()]);
    let channel = set.channel().config(config).build().unwrap();
    EchoClient::new(channel).say("hello").await.unwrap();
}

#[tokio::test]
async fn callers_that_fail_in_a_loop_leave_the_driver_its_turn() {
    let server = TestServer::start();
    let set = Set::of([]);
    let channel = set.channel().build().unwrap();
    let mut client = EchoClient::new(channel.clone());
    // One thread, one loop without a pause: only the channel itself can let the driver run.
    client.say("hello").await.unwrap_err();
    set.set([server.instance()]);
    let until_it_works = async { while client.say("hello").await.is_err() {} };
    within("the new instance is used", until_it_works).await;
}
