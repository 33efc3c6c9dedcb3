//! Our sources under other balancers: tower's and tonic's own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::echo::EchoClient;
use common::{Set, TestServer, eventually, within};
use futures_util::StreamExt;
use sd_core::{Discovery, Incarnation, Instance, ServiceName, Subscription};
use tonic::transport::{Channel, Endpoint};
use tower::discover::Change;
use tower::{ServiceExt, service_fn};

fn subscription(set: &Set) -> Subscription {
    let service = ServiceName::new("echo").unwrap();
    Arc::new(set.clone()).subscribe(&service).unwrap()
}

#[tokio::test]
async fn towers_balance_follows_the_service() {
    let set = Set::of([]);
    let first = common::instance_at(([127, 0, 0, 1], 1).into());
    let second = common::instance_at(([127, 0, 0, 1], 2).into());
    set.set([first.clone(), second.clone()]);
    let discover = sd_grpc::discover(subscription(&set), |instance: &Arc<Instance>| {
        let port = instance.endpoint().port().unwrap();
        let answer = service_fn(move |()| async move { Ok::<_, std::convert::Infallible>(port) });
        tower::load::Constant::new(answer, 0)
    });
    let mut balance = tower::balance::p2c::Balance::new(discover);
    let mut seen = BTreeSet::new();
    let both = async {
        while seen.len() < 2 {
            let service = balance.ready().await.unwrap();
            seen.insert(tower::Service::call(service, ()).await.unwrap());
        }
    };
    within("both get calls", both).await;
}

#[tokio::test]
async fn changes_are_told_in_the_terms_of_tower() {
    let first = common::instance_at(([127, 0, 0, 1], 1).into());
    let set = Set::of([first.clone(), first.clone().with_ready(false)]);
    set.set([first.clone()]);
    let mut changes = sd_grpc::discover(subscription(&set), |instance: &Arc<Instance>| {
        instance.endpoint().to_string()
    });
    let mut next = async || match within("a change", changes.next()).await.unwrap().unwrap() {
        Change::Insert(key, service) => (key.incarnation.as_u64(), Some(service)),
        Change::Remove(key) => (key.incarnation.as_u64(), None),
    };
    assert_eq!(next().await, (1, Some("127.0.0.1:1".to_owned())));
    set.set([first.clone().with_weight(9)]);
    set.set([first.clone().with_endpoint("127.0.0.1:2".parse().unwrap())]);
    assert_eq!(next().await, (1, Some("127.0.0.1:2".to_owned())));
    set.set([first.with_incarnation(Incarnation::from_u64(2))]);
    assert_eq!(next().await, (1, None));
    assert_eq!(next().await, (2, Some("127.0.0.1:1".to_owned())));
}

#[tokio::test]
async fn tonics_balance_channel_is_fed() {
    let servers = [TestServer::start(), TestServer::start()];
    let set = Set::of([servers[0].instance()]);
    let (channel, sender) = Channel::balance_channel(8);
    let feeder = sd_grpc::feed(subscription(&set), sender, |instance| {
        Endpoint::from_shared(format!("http://{}", instance.endpoint())).unwrap()
    });
    let mut client = EchoClient::new(channel);
    within("a call", client.say("hello")).await.unwrap();
    assert_eq!(servers[0].calls(), 1);
    set.set([servers[1].instance()]);
    let moved = async {
        while servers[1].calls() == 0 {
            client.say("hello").await.unwrap();
        }
    };
    within("the other server gets calls", moved).await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    drop(feeder);
    eventually("the feeder's tasks end", || tasks() < before).await;
}
