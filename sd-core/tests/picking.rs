//! Which endpoints of a cache get calls. The clock is paused.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sd_core::balance::{LeastRequest, Outcome, Policy, RoundRobin, Selection, Subset};
use sd_core::combine::Static;
use sd_core::endpoints::EndpointCacheBuilder;
use sd_core::sync::lock;
use sd_core::{
    Discovery, EndpointCache, EndpointSet, Incarnation, Instance, InstanceId, ServiceName,
};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_secs(5 * 60);

fn instance(id: &str) -> Instance {
    let instance = Instance::new("s", "h:1").unwrap();
    let instance = instance.with_id(InstanceId::new(id).unwrap());
    instance.with_incarnation(Incarnation::from_u64(1))
}

/// The ids of instances that cannot be reached.
#[derive(Clone, Debug, Default)]
struct Down(Arc<Mutex<BTreeSet<String>>>);

impl Down {
    fn set(&self, ids: &[&str]) {
        *lock(&self.0) = ids.iter().map(|id| (*id).to_owned()).collect();
    }
}

/// A cache of the ids.
fn cache(down: &Down, instances: &[Instance]) -> EndpointCacheBuilder<String> {
    let source = Arc::new(Static::new(instances.iter().cloned()).unwrap());
    let subscription = source.subscribe(&ServiceName::new("s").unwrap()).unwrap();
    let down = down.clone();
    EndpointCache::builder(subscription, move |instance: Arc<Instance>| {
        let id = instance.id().to_string();
        let is_down = lock(&down.0).contains(&id);
        std::future::ready(if is_down { Err("refused") } else { Ok(id) })
    })
}

/// The ids that many picks give.
fn picked(set: &EndpointSet<String>) -> String {
    let picks = (0..50).filter_map(|_| set.pick());
    let ids: BTreeSet<_> = picks.map(|picked| picked.value().to_string()).collect();
    ids.into_iter().collect::<Vec<_>>().join(" ")
}

/// Waits until picks give these ids.
async fn until_picked(cache: &EndpointCache<String>, ids: &str) {
    let waiting = async {
        while picked(&cache.endpoints()) != ids {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let seen = timeout(SOON, waiting).await;
    assert!(
        seen.is_ok(),
        "{} instead of {ids}",
        picked(&cache.endpoints())
    );
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_cannot_be_reached_hands_over_and_takes_the_calls_back() {
    let all = [
        instance("a"),
        instance("b"),
        instance("c").with_priority(1),
        instance("d").with_priority(2),
    ];
    let down = Down::default();
    down.set(&["a", "b", "c"]);
    let cache = cache(&down, &all).build().unwrap();
    until_picked(&cache, "d").await;
    down.set(&["a", "b"]);
    until_picked(&cache, "c").await;
    down.set(&["a"]);
    until_picked(&cache, "b").await;
    down.set(&[]);
    until_picked(&cache, "a b").await;
    let dump = serde_json::to_value(cache.dump()).unwrap();
    let picked = dump["endpoints"].as_array().unwrap().iter();
    let picked: Vec<_> = picked.map(|one| one["picked"].as_bool().unwrap()).collect();
    assert_eq!(picked, [true, true, false, false]);
}

#[tokio::test(start_paused = true)]
async fn the_own_zone_is_preferred_and_another_one_serves_while_it_cannot_be_reached() {
    let all = [
        instance("a1").with_zone("a"),
        instance("a2").with_zone("a"),
        instance("b1").with_zone("b"),
        instance("x1"),
        instance("spare").with_zone("a").with_priority(1),
    ];
    let down = Down::default();
    down.set(&["a1", "a2"]);
    let selection = Selection::default().with_zone("a");
    let cache = cache(&down, &all).selection(selection).build().unwrap();
    until_picked(&cache, "b1 x1").await;
    down.set(&["a2"]);
    until_picked(&cache, "a1").await;
    down.set(&[]);
    until_picked(&cache, "a1 a2").await;
}

#[tokio::test(start_paused = true)]
async fn only_instances_with_the_labels_and_of_the_subset_get_a_value() {
    let all: Vec<_> = (0..20)
        .map(|nth| {
            let blue = if nth % 2 == 0 { "blue" } else { "green" };
            instance(&format!("{blue}{nth:02}")).with_metadata("colour", blue)
        })
        .collect();
    let subset = Subset::new(4).with_seed(1);
    let selection = Selection::default().with_label("colour", "blue");
    let selection = selection.with_subset(subset);
    let cache = cache(&Down::default(), &all)
        .selection(selection)
        .build()
        .unwrap();
    cache.wait_until_ready(SOON).await.unwrap();
    let made = |set: &EndpointSet<String>| set.missing().is_empty().then(|| set.len());
    let waiting = async {
        while made(&cache.endpoints()).is_none() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap();
    let ids = picked(&cache.endpoints());
    assert_eq!(
        ids.split(' ').filter(|id| id.starts_with("blue")).count(),
        4,
        "{ids}"
    );
    assert_eq!(cache.endpoints().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn labels_that_no_instance_has_are_the_reason_why_nothing_is_there() {
    let selection = Selection::default().with_label("colour", "blue");
    let cache = cache(&Down::default(), &[instance("a")]).selection(selection);
    let cache = cache.build().unwrap();
    let error = cache
        .wait_until_ready(Duration::from_secs(1))
        .await
        .unwrap_err();
    let report = error.report().to_string();
    assert!(
        report.contains("none of the 1 instances of s has the labels"),
        "{report}"
    );
}

/// How many of 1 000 calls each endpoint gets from 16 callers, if a call to `slow` takes 20 times as long.
async fn shares(policy: impl Policy) -> BTreeMap<String, u32> {
    let all = ["fast", "faster", "slow"].map(instance);
    let cache = cache(&Down::default(), &all)
        .policy(policy)
        .build()
        .unwrap();
    let cache = Arc::new(cache);
    until_picked(&cache, "fast faster slow").await;
    let left = Arc::new(Mutex::new(1_000));
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let (cache, left) = (Arc::clone(&cache), Arc::clone(&left));
        callers.spawn(async move {
            let mut counts = BTreeMap::new();
            loop {
                {
                    let mut left = lock(&left);
                    if *left == 0 {
                        return counts;
                    }
                    *left -= 1;
                }
                let picked = cache.pick().unwrap();
                let id = picked.value().to_string();
                let millis = if id == "slow" { 100 } else { 5 };
                sleep(Duration::from_millis(millis)).await;
                *counts.entry(id).or_insert(0) += 1;
                picked.end(Outcome::Success);
            }
        });
    }
    let mut all = BTreeMap::new();
    while let Some(counts) = callers.join_next().await {
        for (id, count) in counts.unwrap() {
            *all.entry(id).or_insert(0) += count;
        }
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_slow_endpoint_gets_fewer_calls_by_least_request_and_its_share_in_turn() {
    let in_turn = shares(RoundRobin::new()).await;
    assert!(in_turn["slow"] > 300, "{in_turn:?}");
    let least = shares(LeastRequest::new()).await;
    assert!(least["slow"] < 150, "{least:?}");
}
