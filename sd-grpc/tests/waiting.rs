//! Calls that wait for an endpoint: how long, how many, and what ends it.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::echo::{EchoClient, Text};
use common::{Set, Silent, TestServer, eventually, ready, within};
use sd_core::ErrorKind;
use sd_grpc::{ChannelConfig, Readiness};
use tokio::sync::Semaphore;
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

#[tokio::test]
async fn calls_that_wait_for_a_full_endpoint_are_served_in_their_order() {
    const WAITING: usize = 20;
    let gate = Arc::new(Semaphore::new(0));
    let order = Arc::new(Mutex::new(Vec::new()));
    let (opened, seen) = (Arc::clone(&gate), Arc::clone(&order));
    let server = TestServer::configured(
        move |call| {
            seen.lock().unwrap().push(call.text);
            let gate = Arc::clone(&opened);
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(Text::new("done"))
            }
        },
        |server| server.max_concurrent_streams(1),
    );
    let mut config = ChannelConfig::default();
    config.max_connections = 1;
    let set = Set::of([server.instance()]);
    let channel = set.channel().config(config).build().unwrap();
    ready(&channel, 1).await;
    // It calls again in the moment in which its place is free, before any other task has its turn.
    let mut client = EchoClient::new(channel.clone());
    let greedy = tokio::spawn(async move { while client.say("greedy").await.is_ok() {} });
    eventually("the first call arrives", || server.calls() == 1).await;
    let mut calls = Vec::new();
    for nth in 0..WAITING {
        let mut client = EchoClient::new(channel.clone());
        calls.push(tokio::spawn(
            async move { client.say(&nth.to_string()).await },
        ));
        eventually("the call waits", || channel.dump().waiting == nth + 1).await;
    }
    gate.add_permits(Semaphore::MAX_PERMITS / 2);
    for call in calls {
        within("a call", call).await.unwrap().unwrap();
    }
    greedy.abort();
    let first: Vec<_> = order
        .lock()
        .unwrap()
        .iter()
        .take(WAITING + 1)
        .cloned()
        .collect();
    let mut expected = vec!["greedy".to_owned()];
    expected.extend((0..WAITING).map(|nth| nth.to_string()));
    assert_eq!(first, expected);
    eventually("none waits", || channel.dump().waiting == 0).await;
}

#[tokio::test]
async fn a_share_of_the_endpoints_can_be_waited_for() {
    let servers = [TestServer::start(), TestServer::start()];
    let dead = sd_testing::free_port().unwrap();
    let dead = common::instance_at(([127, 0, 0, 1], dead).into());
    let set = Set::of(servers.iter().map(TestServer::instance).chain([dead]));
    let channel = set.channel().build().unwrap();
    let limit = Duration::from_secs(20);
    channel
        .wait_until(Readiness::Share(0.6), limit)
        .await
        .unwrap();
    channel
        .wait_until(Readiness::Endpoints(2), limit)
        .await
        .unwrap();
    let soon = Duration::from_millis(100);
    let error = channel.wait_until(Readiness::Share(1.0), soon).await;
    let error = error.unwrap_err().report().to_string();
    assert!(error.contains("2 of 3"), "{error}");
    let mistake = channel.wait_until(Readiness::Share(7.0), limit).await;
    assert_eq!(mistake.unwrap_err().kind(), ErrorKind::InvalidInput);
}
