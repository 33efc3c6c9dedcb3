//! Which endpoints are connected, and which of them get the calls.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::echo::{EchoClient, Text, UNARY};
use common::{Set, TestServer, eventually, ready};
use futures_util::future::join_all;
use sd_core::Instance;
use sd_core::balance::{
    CallInfo, Candidates, LeastRequest, Load, Outcome, Picker, Policy, RoundRobin, Selection,
    Subset,
};
use sd_core::sync::lock;
use sd_grpc::{BalancedChannel, HashKey};
use tokio::time::sleep;
use tonic::{Code, Request, Status};

/// The endpoints that get calls, as the dump says and as the answers show.
async fn called(channel: &BalancedChannel) -> BTreeSet<String> {
    let mut client = EchoClient::new(channel.clone());
    let mut answers = BTreeSet::new();
    for _ in 0..20 {
        answers.insert(client.say("hello").await.unwrap());
    }
    answers
}

fn picked(channel: &BalancedChannel) -> BTreeSet<String> {
    let endpoints = channel.dump().endpoints.into_iter();
    let picked = endpoints.filter(|endpoint| endpoint.picked);
    picked
        .map(|endpoint| endpoint.address.to_string())
        .collect()
}

/// Waits until exactly these servers are picked, and checks that they get the calls.
async fn only(channel: &BalancedChannel, servers: &[&TestServer]) {
    let addresses = servers
        .iter()
        .map(|server| server.address.to_string())
        .collect();
    eventually("the right endpoints are picked", || {
        picked(channel) == addresses
    })
    .await;
    assert_eq!(called(channel).await, addresses);
}

#[tokio::test]
async fn a_tier_that_cannot_be_reached_hands_over_and_takes_the_calls_back() {
    let mut first = [TestServer::start(), TestServer::start()];
    let spare = TestServer::start();
    let mut all: Vec<_> = first.iter().map(TestServer::instance).collect();
    all.push(spare.instance().with_priority(1));
    let channel = Set::of(all).channel().build().unwrap();
    ready(&channel, 3).await;
    only(&channel, &[&first[0], &first[1]]).await;
    assert_eq!(spare.calls(), 0);
    first[0].kill();
    only(&channel, &[&first[1]]).await;
    first[1].kill();
    only(&channel, &[&spare]).await;
    let back = TestServer::restart_at(first[0].address);
    only(&channel, &[&back]).await;
}

#[tokio::test]
async fn the_own_zone_is_preferred_and_another_one_serves_while_it_cannot_be_reached() {
    let mut own = TestServer::start();
    let (other, spare) = (TestServer::start(), TestServer::start());
    let set = Set::of([
        own.instance().with_zone("a"),
        other.instance().with_zone("b"),
        spare.instance().with_zone("a").with_priority(1),
    ]);
    let selection = Selection::default().with_zone("a");
    let channel = set.channel().selection(selection).build().unwrap();
    ready(&channel, 3).await;
    only(&channel, &[&own]).await;
    own.kill();
    only(&channel, &[&other]).await;
    let back = TestServer::restart_at(own.address);
    only(&channel, &[&back]).await;
}

#[tokio::test]
async fn only_instances_with_the_labels_and_of_the_subset_are_connected() {
    let servers: Vec<_> = (0..8).map(|_| TestServer::start()).collect();
    let colour = |nth: usize| if nth < 6 { "blue" } else { "green" };
    let instances = servers.iter().enumerate();
    let instances =
        instances.map(|(nth, server)| server.instance().with_metadata("colour", colour(nth)));
    let selection = Selection::default().with_label("colour", "blue");
    let selection = selection.with_subset(Subset::new(3));
    let set = Set::of(instances);
    let channel = set.channel().selection(selection).build().unwrap();
    ready(&channel, 3).await;
    let chosen = picked(&channel);
    for (nth, server) in servers.iter().enumerate() {
        let is_chosen = chosen.contains(&server.address.to_string());
        assert!(!is_chosen || nth < 6);
        assert_eq!(server.accepted(), usize::from(is_chosen));
    }
    // One that loses its label is replaced by another one.
    let mut gone = None;
    set.set(servers.iter().enumerate().map(|(nth, server)| {
        let leaves = gone.is_none() && chosen.contains(&server.address.to_string());
        gone = gone.or(leaves.then_some(nth));
        let colour = if leaves { "green" } else { colour(nth) };
        server.instance().with_metadata("colour", colour)
    }));
    eventually("another one is chosen", || {
        let now = picked(&channel);
        now.len() == 3 && now.difference(&chosen).count() == 1
    })
    .await;
    let gone = &servers[gone.unwrap()];
    eventually("the connection is closed", || gone.open() == 0).await;
}

#[tokio::test]
async fn labels_that_no_instance_has_are_named() {
    let server = TestServer::start();
    let selection = Selection::default().with_label("colour", "blue");
    let channel = Set::of([server.instance()])
        .channel()
        .selection(selection)
        .build()
        .unwrap();
    let status = EchoClient::new(channel).say("hello").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let text = r#"none of the 1 registered instances has the labels "colour"="blue""#;
    assert!(status.message().contains(text), "{status}");
    assert_eq!(server.accepted(), 0);
}

/// How many of 600 calls each endpoint gets from 12 callers, if the first one is slow.
async fn shares(policy: impl Policy) -> [usize; 3] {
    let answering = |millis| {
        TestServer::answering(move |_| async move {
            sleep(Duration::from_millis(millis)).await;
            Ok(Text::new("done"))
        })
    };
    let servers = [answering(300), answering(10), answering(10)];
    let set = Set::of(servers.iter().map(TestServer::instance));
    let channel = set.channel().policy(policy).build().unwrap();
    ready(&channel, 3).await;
    join_all((0..12).map(|_| async {
        let mut client = EchoClient::new(channel.clone());
        for _ in 0..50 {
            client.say("hello").await.unwrap();
        }
    }))
    .await;
    servers.each_ref().map(TestServer::calls)
}

#[tokio::test]
async fn a_slow_endpoint_gets_fewer_calls_by_least_request_and_its_share_in_turn() {
    assert_eq!(shares(RoundRobin::new()).await, [200, 200, 200]);
    let least = shares(LeastRequest::new()).await;
    assert!(least[0] < 120, "{least:?}");
    assert_eq!(least.iter().sum::<usize>(), 600);
}

/// Picks by the hash key, and notes what it hears.
#[derive(Clone, Debug, Default)]
struct Noting {
    open: Arc<AtomicU64>,
    ended: Arc<Mutex<BTreeMap<String, usize>>>,
    methods: Arc<Mutex<BTreeSet<String>>>,
}

impl Policy for Noting {
    fn new_load(&self, _: &Arc<Instance>) -> Option<Arc<dyn Load>> {
        Some(Arc::new(self.clone()))
    }

    fn picker(&self, candidates: &Candidates<'_>, _: Option<&dyn Picker>) -> Box<dyn Picker> {
        Box::new(ByKey(self.clone(), candidates.len()))
    }
}

impl Load for Noting {
    fn begin(&self) -> u64 {
        self.open.fetch_add(1, Ordering::SeqCst)
    }

    fn end(&self, _: u64, outcome: Outcome) {
        self.open.fetch_sub(1, Ordering::SeqCst);
        *lock(&self.ended).entry(format!("{outcome:?}")).or_default() += 1;
    }
}

#[derive(Debug)]
struct ByKey(Noting, usize);

impl Picker for ByKey {
    fn pick(&self, call: &CallInfo<'_>) -> Option<usize> {
        lock(&self.0.methods).extend(call.method().map(str::to_owned));
        let start = usize::try_from(call.hash_key().unwrap_or(0)).ok()?;
        let mut all = (start..start + self.1).map(|nth| nth % self.1);
        all.find(|nth| !call.has_tried(*nth))
    }
}

#[tokio::test]
async fn a_policy_of_ones_own_picks_by_key_and_hears_how_calls_end() {
    let answering = || {
        TestServer::answering(|seen| async move {
            match seen.text.as_str() {
                "busy" => Err(Status::unavailable("busy")),
                "wrong" => Err(Status::not_found("wrong")),
                "slow" => {
                    sleep(Duration::from_secs(3600)).await;
                    Ok(Text::new("late"))
                }
                _ => Ok(Text::new("done")),
            }
        })
    };
    let servers = [answering(), answering(), answering()];
    let set = Set::of(servers.iter().map(TestServer::instance));
    let noting = Noting::default();
    let channel = set.channel().policy(noting.clone()).build().unwrap();
    ready(&channel, 3).await;
    let mut client = EchoClient::new(channel);
    let request = |text: &str, key| {
        let mut request = Request::new(Text::new(text));
        request.extensions_mut().insert(HashKey(key));
        request
    };
    for _ in 0..10 {
        client.unary(request("hello", 2)).await.unwrap();
    }
    client.unary(request("wrong", 1)).await.unwrap_err();
    client.unary(request("busy", 1)).await.unwrap_err();
    let mut slow = request("slow", 0);
    slow.set_timeout(Duration::from_millis(200));
    client.unary(slow).await.unwrap_err();
    let dropped =
        tokio::time::timeout(Duration::from_millis(200), client.unary(request("slow", 0)));
    dropped.await.unwrap_err();
    drop(client.split("a b c").await.unwrap());
    let counts: BTreeSet<_> = servers
        .iter()
        .map(|one| one.executed().get("hello").copied())
        .collect();
    assert_eq!(counts, BTreeSet::from([None, Some(10)]));
    eventually("all calls have ended", || {
        noting.open.load(Ordering::SeqCst) == 0
    })
    .await;
    let ended = lock(&noting.ended).clone();
    let expected = [("Dropped", 2), ("Failure", 2), ("Success", 11)];
    let expected = expected.map(|(outcome, count)| (outcome.to_owned(), count));
    assert_eq!(ended, BTreeMap::from(expected));
    assert!(lock(&noting.methods).contains(UNARY));
}
