//! How many connections a channel has, at most.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::echo::EchoClient;
use common::{Set, TestServer, eventually, ready};
use rustix::process::{Resource, getrlimit};
use sd_core::{Incarnation, Instance};
use sd_grpc::{BalancedChannel, ChannelConfig, EndpointState};
use tokio::time::sleep;
use tonic::Code;

/// A channel that may have so many connections.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn channel(set: &Set, connections: f64) -> BalancedChannel {
    let limit = getrlimit(Resource::Nofile).current.unwrap();
    let mut config = ChannelConfig::default();
    config.descriptor_share = Some((connections + 0.5) / limit as f64);
    config.reconnect_cap = Duration::from_millis(50);
    set.channel().config(config).build().unwrap()
}

fn count(channel: &BalancedChannel, state: EndpointState) -> usize {
    let endpoints = channel.dump().endpoints;
    endpoints.iter().filter(|one| one.state == state).count()
}

#[tokio::test]
async fn connections_take_no_more_than_their_share_of_the_descriptors() {
    let servers: Vec<_> = (0..4).map(|_| TestServer::start()).collect();
    let set = Set::of(servers.iter().map(TestServer::instance));
    let channel = channel(&set, 2.0);
    let both = || {
        let (ready, failing) = (EndpointState::Ready, EndpointState::Failing);
        (count(&channel, ready), count(&channel, failing))
    };
    eventually("two are connected", || both() == (2, 2)).await;
    let endpoints = channel.dump().endpoints;
    let refused = endpoints.iter().find(|one| one.connections == 0).unwrap();
    let reason = refused.reason.as_deref().unwrap();
    assert!(reason.contains("descriptor_share"), "{reason}");
    let mut client = EchoClient::new(channel.clone());
    for _ in 0..20 {
        client.say("hello").await.unwrap();
    }
    assert_eq!(both(), (2, 2));

    // A connection that ends makes room for another one.
    let gone = endpoints.iter().find(|one| one.connections == 1).unwrap();
    let staying = servers.iter().map(TestServer::instance);
    let staying: Vec<Instance> = staying.filter(|one| *one.id() != gone.id).collect();
    set.set(staying);
    eventually("another one is connected", || both() == (2, 1)).await;
    let accepted: usize = servers.iter().map(TestServer::accepted).sum();
    assert_eq!(accepted, 3);
}

#[tokio::test]
async fn a_call_that_finds_no_endpoint_for_want_of_descriptors_says_so() {
    let (one, other) = (TestServer::start(), TestServer::start());
    let set = Set::of([one.instance()]);
    let channel = channel(&set, 1.0);
    let mut client = EchoClient::new(channel.clone());
    client.say("hello").await.unwrap();
    // Not ready, it keeps its connection.
    set.set([one.instance().with_ready(false), other.instance()]);
    eventually("the other one has none", || {
        count(&channel, EndpointState::Failing) == 1
    })
    .await;
    let status = client.say("hello").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let message = status.message();
    assert!(message.contains("descriptor_share"), "{message}");
}

#[tokio::test]
async fn an_endpoint_that_moves_is_not_kept_out_by_its_own_old_connection() {
    let (old, new) = (TestServer::start(), TestServer::start());
    let instance = old.instance().with_incarnation(Incarnation::from_u64(1));
    let set = Set::of([instance.clone()]);
    let channel = channel(&set, 1.0);
    ready(&channel, 1).await;
    set.set([instance.with_endpoint(new.address.try_into().unwrap())]);
    eventually("the old connection closes", || old.open() == 0).await;
    let mut client = EchoClient::new(channel);
    assert_eq!(client.say("hello").await.unwrap(), new.address.to_string());
}

#[tokio::test]
async fn the_last_place_is_kept_for_an_endpoint_without_a_connection() {
    let full = TestServer::configured(
        |_| std::future::pending(),
        |server| server.max_concurrent_streams(1),
    );
    let other = TestServer::start();
    let set = Set::of([full.instance()]);
    let channel = channel(&set, 2.0);
    ready(&channel, 1).await;
    let calls: Vec<_> = (0..2)
        .map(|_| {
            let mut client = EchoClient::new(channel.clone());
            tokio::spawn(async move { client.say("hello").await })
        })
        .collect();
    eventually("a call arrives", || full.calls() == 1).await;
    // The other call asks for a second connection all the time.
    sleep(Duration::from_millis(100)).await;
    assert_eq!(full.accepted(), 1);
    set.set([full.instance(), other.instance()]);
    ready(&channel, 2).await;
    for call in calls {
        call.abort();
    }
}
