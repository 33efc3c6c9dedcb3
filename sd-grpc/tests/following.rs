//! The channel follows its service, with or without calls.

mod common;

use std::time::Duration;

use common::echo::EchoClient;
use common::{SOON, Set, Silent, TestServer, eventually, ready, within};
use sd_core::{ErrorKind, Incarnation};
use sd_grpc::{ChannelConfig, EndpointState, WaitForReady};
use tokio::time::{Instant, sleep};
use tonic::{Code, Request};

use crate::common::echo::Text;

#[tokio::test]
async fn an_idle_channel_connects_what_comes_and_closes_what_goes() {
    let (first, second) = (TestServer::start(), TestServer::start());
    let set = Set::of([first.instance()]);
    let channel = set.channel().build().unwrap();
    ready(&channel, 1).await;
    set.set([first.instance(), second.instance()]);
    ready(&channel, 2).await;
    set.set([second.instance()]);
    eventually("the socket of the removed endpoint closes", || {
        first.open() == 0
    })
    .await;
    assert_eq!((second.open(), second.accepted()), (1, 1));
    set.set([]);
    eventually("the last socket closes", || second.open() == 0).await;
    assert_eq!(channel.dump().calls, 0);
}

#[tokio::test]
async fn an_idle_channel_takes_in_more_than_a_thousand_sets() {
    let server = TestServer::start();
    let set = Set::of([server.instance()]);
    let channel = set.channel().build().unwrap();
    ready(&channel, 1).await;
    for nth in 0..1_200 {
        let wants_calls = nth % 2 == 1;
        set.set([server.instance().with_ready(wants_calls)]);
        // Only what shows in the channel was not skipped for a newer set.
        let shown = async {
            while (channel.dump().endpoints[0].state == EndpointState::Ready) != wants_calls {
                tokio::task::yield_now().await;
            }
        };
        within("the set", shown).await;
    }
    EchoClient::new(channel).say("hello").await.unwrap();
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn an_empty_set_fails_at_once_without_a_deadline() {
    let set = Set::of([]);
    let channel = set.channel().build().unwrap();
    let mut client = EchoClient::new(channel.clone());
    // The first call may have to wait for the set.
    client.say("hello").await.unwrap_err();
    let before = Instant::now();
    let status = client.say("hello").await.unwrap_err();
    assert!(before.elapsed() < Duration::from_secs(1));
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().contains("no instance is registered"),
        "{status}"
    );
    assert_eq!(channel.dump().failed, 2);
}

#[tokio::test]
async fn a_set_that_wants_no_calls_fails_at_once() {
    let server = TestServer::start();
    let set = Set::of([server.instance().with_ready(false)]);
    let channel = set.channel().build().unwrap();
    let mut client = EchoClient::new(channel.clone());
    let status = client.say("hello").await.unwrap_err();
    assert!(
        status
            .message()
            .contains("no instance is ready (1 registered)"),
        "{status}"
    );
    set.set([server.instance()]);
    channel.wait_until_ready(SOON).await.unwrap();
    client.say("hello").await.unwrap();
}

#[tokio::test]
async fn a_service_that_was_never_told_waits_for_the_deadline() {
    let mut client = EchoClient::new(Silent::channel().build().unwrap());
    let mut request = Request::new(Text::new("hello"));
    request.set_timeout(Duration::from_millis(200));
    let before = Instant::now();
    let status = within("deadline", client.unary(request)).await.unwrap_err();
    let waited = before.elapsed();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("not listed"), "{status}");
    assert!((200..3_000).contains(&waited.as_millis()), "{waited:?}");
}

#[tokio::test]
async fn without_a_deadline_waiting_for_the_service_is_capped() {
    let mut config = ChannelConfig::default();
    config.connect_wait = Duration::from_millis(100);
    let channel = Silent::channel().config(config).build().unwrap();
    let mut client = EchoClient::new(channel.clone());
    let status = within("cap", client.say("hello")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let error = channel
        .wait_until_ready(Duration::from_millis(10))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn a_call_that_waits_for_ready_outlasts_an_empty_set() {
    let server = TestServer::start();
    let set = Set::of([]);
    let channel = set.channel().build().unwrap();
    let mut request = Request::new(Text::new("hello"));
    request.extensions_mut().insert(WaitForReady(true));
    let mut client = EchoClient::new(channel.clone());
    let call = tokio::spawn(async move { client.unary(request).await });
    eventually("the call waits", || channel.dump().calls == 1).await;
    assert_eq!(channel.dump().failed, 0);
    set.set([server.instance()]);
    within("the call", call).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_no_address_keeps_the_connection() {
    let server = TestServer::start();
    let set = Set::of([server.instance()]);
    let run = Incarnation::from_u64(1);
    set.set([server.instance().with_incarnation(run)]);
    let channel = set.channel().build().unwrap();
    ready(&channel, 1).await;
    let same = server.instance().with_incarnation(run);
    set.set([same
        .clone()
        .with_weight(7)
        .with_zone("b")
        .with_metadata("k", "v")]);
    set.set([same.clone().with_ready(false)]);
    eventually("it wants no calls", || {
        channel.dump().endpoints[0].state == EndpointState::NotReady
    })
    .await;
    set.set([same]);
    ready(&channel, 1).await;
    EchoClient::new(channel).say("hello").await.unwrap();
    assert_eq!((server.accepted(), server.open()), (1, 1));
}

#[tokio::test]
async fn a_new_run_at_the_same_address_gets_a_new_connection() {
    let server = TestServer::start();
    let set = Set::of([server.instance().with_incarnation(Incarnation::from_u64(1))]);
    let channel = set.channel().build().unwrap();
    ready(&channel, 1).await;
    set.set([server.instance().with_incarnation(Incarnation::from_u64(2))]);
    eventually("a new connection replaced the old one", || {
        (server.accepted(), server.open()) == (2, 1)
    })
    .await;
    ready(&channel, 1).await;
    EchoClient::new(channel).say("hello").await.unwrap();
}

#[tokio::test]
async fn an_instance_that_moves_is_served_at_its_old_place_until_the_new_one_is_connected() {
    let (old, new) = (TestServer::start(), TestServer::start());
    let run = Incarnation::from_u64(1);
    let instance = old.instance().with_incarnation(run);
    let set = Set::of([instance.clone()]);
    let channel = set.channel().build().unwrap();
    ready(&channel, 1).await;
    let mut client = EchoClient::new(channel.clone());

    // To a port without a listener.
    let nowhere = sd_testing::free_port().unwrap();
    let nowhere = format!("127.0.0.1:{nowhere}").parse().unwrap();
    set.set([instance.clone().with_endpoint(nowhere)]);
    for _ in 0..50 {
        assert_eq!(client.say("hello").await.unwrap(), old.address.to_string());
        sleep(Duration::from_millis(2)).await;
    }
    set.set([instance.with_endpoint(new.address.try_into().unwrap())]);
    eventually("the old connection closes", || old.open() == 0).await;
    assert_eq!(client.say("hello").await.unwrap(), new.address.to_string());
    assert_eq!(channel.dump().failed, 0);
}

#[tokio::test]
async fn calls_in_flight_outlive_their_removed_endpoint() {
    let (release, wait) = tokio::sync::watch::channel(false);
    let server = TestServer::answering(move |_| {
        let mut wait = wait.clone();
        async move {
            wait.wait_for(|released| *released).await.unwrap();
            Ok(Text::new("done"))
        }
    });
    let set = Set::of([server.instance()]);
    let channel = set.channel().build().unwrap();
    ready(&channel, 1).await;
    let mut client = EchoClient::new(channel.clone());
    let call = tokio::spawn(async move { client.say("hello").await });
    eventually("the call arrives", || server.calls() == 1).await;
    set.set([]);
    eventually("it drains", || {
        channel
            .dump()
            .endpoints
            .iter()
            .all(|e| e.state == EndpointState::Draining)
    })
    .await;
    assert_eq!(server.open(), 1);
    release.send(true).unwrap();
    assert_eq!(within("the call", call).await.unwrap().unwrap(), "done");
    eventually("the socket closes", || server.open() == 0).await;
    eventually("nothing is left", || channel.dump().endpoints.is_empty()).await;
}

#[tokio::test]
async fn a_drain_ends_after_its_time() {
    let server = TestServer::answering(|_| std::future::pending());
    let set = Set::of([server.instance()]);
    let mut config = ChannelConfig::default();
    config.drain_timeout = Duration::from_millis(50);
    let channel = set.channel().config(config).build().unwrap();
    ready(&channel, 1).await;
    let mut client = EchoClient::new(channel.clone());
    let call = tokio::spawn(async move { client.say("hello").await });
    eventually("the call arrives", || server.calls() == 1).await;
    set.set([]);
    let status = within("the call", call).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn five_thousand_endpoints_come_in_one_set_and_one_change_touches_no_other() {
    let server = TestServer::start();
    let instances: Vec<_> = (0..5_000)
        .map(|nth| {
            server
                .instance()
                .with_id(sd_core::InstanceId::new(format!("i{nth:05}")).unwrap())
                .with_incarnation(Incarnation::from_u64(1))
        })
        .collect();
    // Real sockets for a few, a connector that never answers for the others.
    let connector = move |instance: std::sync::Arc<sd_core::Instance>| {
        let real = instance.id().as_str() < "i00003";
        async move {
            if !real {
                std::future::pending::<()>().await;
            }
            let sd_core::Address::Tcp { host, port } = instance.endpoint().address() else {
                return Err(std::io::ErrorKind::Unsupported.into());
            };
            tokio::net::TcpStream::connect((host, port)).await
        }
    };
    let set = Set::of(instances.clone());
    let channel = set.channel().connector(connector).build().unwrap();
    eventually("three are connected", || server.open() == 3).await;
    assert_eq!(channel.dump().endpoints.len(), 5_000);
    let mut changed = instances;
    changed[0] = changed[0].clone().with_metadata("k", "v");
    changed.pop();
    set.set(changed);
    eventually("one is gone", || channel.dump().endpoints.len() == 4_999).await;
    let mut client = EchoClient::new(channel);
    for _ in 0..30 {
        client.say("hello").await.unwrap();
    }
    assert_eq!((server.accepted(), server.open()), (3, 3));
}
