//! The leader of an election as the only instance of a service.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use sd_core::memory::Memory;
use sd_core::{
    Endpoint, ErrorKind, Instancer, ServiceName, State, Subscription, SubscriptionConfig,
};
use sd_election::{Candidate, LeaderInstancer};
use tokio::runtime::Handle;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(5);
const ELECTION: &str = "reports/nightly";

fn candidate(memory: &Memory, value: &str) -> Candidate {
    Candidate::builder(&memory.connect(), ELECTION)
        .value(value)
        .on_runtime(Handle::current())
        .build()
        .unwrap()
}

fn reports() -> ServiceName {
    ServiceName::new("reports").unwrap()
}

fn subscribe(leaders: LeaderInstancer, memory: &Memory) -> Subscription {
    let clock = Arc::clone(&memory.connect().config().clock);
    let config = SubscriptionConfig::default();
    Subscription::spawn(Arc::new(leaders), reports(), config, clock).unwrap()
}

/// The next state whose only address is `address`, or that has none.
async fn next_with(subscription: &mut Subscription, address: Option<&str>) -> State {
    let told = async {
        loop {
            let state = subscription.changed().await.unwrap();
            let addresses: Vec<String> = state
                .snapshot()
                .instances()
                .iter()
                .map(|instance| instance.endpoint().to_string())
                .collect();
            if addresses.iter().map(String::as_str).eq(address) {
                break state;
            }
        }
    };
    timeout(SOON, told).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_set_is_the_leader_and_nothing_while_there_is_none() {
    let memory = Memory::new();
    let leaders = LeaderInstancer::new(&memory.connect(), ELECTION).unwrap();
    let mut subscription = subscribe(leaders, &memory);
    next_with(&mut subscription, None).await;

    let first = candidate(&memory, "10.0.0.1:80").campaign().await.unwrap();
    next_with(&mut subscription, Some("10.0.0.1:80")).await;
    first.proclaim("10.0.0.1:81").await.unwrap();
    next_with(&mut subscription, Some("10.0.0.1:81")).await;

    // Half of the set is gone at once, and is not held.
    first.resign().await.unwrap();
    let state = next_with(&mut subscription, None).await;
    assert!(state.snapshot().held().is_empty());
    let _second = candidate(&memory, "10.0.0.2:80").campaign().await.unwrap();
    next_with(&mut subscription, Some("10.0.0.2:80")).await;
}

#[tokio::test(start_paused = true)]
async fn a_value_without_an_address_is_named_and_another_reader_finds_it() {
    let memory = Memory::new();
    let leaders = LeaderInstancer::new(&memory.connect(), ELECTION).unwrap();
    let _leadership = candidate(&memory, "host-7").campaign().await.unwrap();
    let set = leaders.list(&reports()).await.unwrap();
    assert!(set.is_empty());
    assert_eq!(set.skipped()[0].key, ELECTION);

    let leaders = leaders.with_endpoint_of(|value| {
        let host = str::from_utf8(value).unwrap_or_default();
        Endpoint::tcp(host, 50051)
    });
    let set = leaders.list(&reports()).await.unwrap();
    assert_eq!(set.instances()[0].endpoint().to_string(), "host-7:50051");
}

#[tokio::test(start_paused = true)]
async fn an_election_lists_no_services() {
    let leaders = LeaderInstancer::new(&Memory::new().connect(), ELECTION).unwrap();
    let error = leaders.services().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
