//! How many connections a channel has, at most.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::echo::EchoClient;
use common::{Set, TestServer, eventually};
use rustix::process::{Resource, getrlimit};
use sd_core::Instance;
use sd_grpc::{BalancedChannel, ChannelConfig, EndpointState};
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
