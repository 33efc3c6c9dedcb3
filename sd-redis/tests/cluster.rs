//! A Cluster of three primaries and their replicas: a slot moves, a node is lost.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::election::{
    Booth, LASTING, after, first, leads, name, ticket_for, told_at_last, waits,
};
use common::group::{POLL_INTERVAL, ask, cluster, cluster_url, registry, try_ask, until_role};
use common::{LONG, eventually, instance, is_live_with, until};
use sd_core::ErrorKind;
use sd_testing::ServerGroup;
use server_programs::Redis;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

/// The primary that has the slot of a key: they share all slots in their order.
async fn owner_of(group: &ServerGroup<Redis>, key: &'static str) -> (u16, usize) {
    let node = group.members()[0].program().clone();
    let slot = spawn_blocking(move || node.slot_of(key)).await.unwrap();
    let slot = slot.unwrap();
    (slot, usize::from(slot) * 3 / 16_384)
}

async fn move_slot(group: &ServerGroup<Redis>, slot: u16, from: usize, to: usize) {
    let [from, to] = [from, to].map(|member| group.members()[member].program().clone());
    let moved = spawn_blocking(move || from.move_slot(slot, &to)).await;
    moved.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_service_and_an_election_whose_slots_move_go_on() {
    let group = cluster().await;
    let url = cluster_url(&group);
    let (owner, reader) = (registry(&url), registry(&url));
    let _kept = owner.register(instance(1)).await.unwrap();
    let mut seen = reader.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    let booth = Booth::at(&url);
    let (one, two) = (booth.elector(), booth.elector());
    let (a, b) = (ticket_for("a", LASTING), ticket_for("b", LASTING));
    let leader = one.join(&a).await.unwrap();
    let token = leads(&*leader).await;
    let next = two.join(&b).await.unwrap();
    let waiting = waits(&*next).await;

    for key in ["greeter", "reports/nightly"] {
        let (slot, from) = owner_of(&group, key).await;
        move_slot(&group, slot, from, (from + 1) % 3).await;
    }
    let since = Instant::now();
    let _second = owner.register(instance(2)).await.unwrap();
    until(&mut seen, "two", is_live_with(2)).await;
    let bound = POLL_INTERVAL + Duration::from_secs(3);
    assert!(since.elapsed() < bound, "{:?}", since.elapsed());
    leader.confirm().await.unwrap();
    next.confirm().await.unwrap();
    assert_eq!(leads(&*leader).await, token);
    let leaving = async {
        sleep(Duration::from_millis(100)).await;
        one.leave(&a).await.unwrap();
    };
    let (told, ()) = tokio::join!(after(&*next, &waiting), leaving);
    assert!(first(told).0 > token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_service_and_an_election_outlive_the_node_that_has_them() {
    let mut group = cluster().await;
    let url = cluster_url(&group);
    let (owner, reader) = (registry(&url), registry(&url));
    let _kept = owner.register(instance(1)).await.unwrap();
    let mut seen = reader.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    let booth = Booth::at(&url);
    let (one, two) = (booth.elector(), booth.elector());
    let (a, b) = (ticket_for("a", LASTING), ticket_for("b", LASTING));
    let leader = one.join(&a).await.unwrap();
    let token = leads(&*leader).await;
    let next = two.join(&b).await.unwrap();
    let waiting = waits(&*next).await;

    // Both at one node, which is then lost.
    let (_, lost) = owner_of(&group, "greeter").await;
    let (slot, from) = owner_of(&group, "reports/nightly").await;
    if from != lost {
        move_slot(&group, slot, from, lost).await;
    }
    let primary = group.members()[lost].program().clone();
    assert_eq!(ask(&primary, &["WAIT", "1", "30000"]).await, "1");
    leader.confirm().await.unwrap();
    let replica = group.members()[lost + 3].program().clone();
    group.members_mut()[lost].kill().unwrap();
    until_role(&replica, "master").await;
    let is_back = async || {
        let said = try_ask(&replica, &["CLUSTER", "INFO"]).await;
        said.is_ok_and(|said| said.contains("cluster_state:ok"))
    };
    eventually("served again", LONG, is_back).await;

    for entry in [&leader, &next] {
        eventually("confirmed", LONG, async || entry.confirm().await.is_ok()).await;
    }
    assert_eq!(leads(&*leader).await, token);
    let is_registered = async || owner.list("greeter").await.is_ok();
    eventually("listed", LONG, is_registered).await;
    let since = Instant::now();
    let _second = owner.register(instance(2)).await.unwrap();
    until(&mut seen, "two", is_live_with(2)).await;
    let bound = POLL_INTERVAL + Duration::from_secs(3);
    assert!(since.elapsed() < bound, "{:?}", since.elapsed());
    let leaving = async {
        eventually("left", LONG, async || one.leave(&a).await.is_ok()).await;
    };
    let (told, ()) = tokio::join!(told_at_last(&*next, &waiting), leaving);
    assert!(first(told).0 > token);
    // The node comes back as a replica with nothing, and is no one's primary.
    group.members_mut()[lost].restart_empty().await.unwrap();
    next.confirm().await.unwrap();
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_guarded_write_takes_keys_in_the_slot_of_its_election_and_refuses_others() {
    let group = cluster().await;
    let booth = Booth::at(&cluster_url(&group));
    let elector = booth.elector();
    let ticket = ticket_for("a", LASTING);
    let token = leads(&*elector.join(&ticket).await.unwrap()).await;
    let registry = booth.registry();
    let guard = sd_redis::leads(&registry, &name(), ticket.id, &token)
        .await
        .unwrap();
    let refused = guard.keys(["report"]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let target = format!("report:{{{}}}", name());
    let keys = guard.keys([target.as_str()]).unwrap();
    let args: Vec<String> = guard
        .args(["1"])
        .into_iter()
        .map(|arg| String::from_utf8(arg).unwrap())
        .collect();
    let script = guard.script("return redis.call('SET', KEYS[1], ARGV[1])");
    let count = keys.len().to_string();
    let words = ["EVAL", &script, &count].into_iter();
    let words: Vec<&str> = words
        .chain(keys.iter().chain(&args).map(String::as_str))
        .collect();
    let (_, owner) = owner_of(&group, "reports/nightly").await;
    let owner = group.members()[owner].program();
    assert_eq!(ask(owner, &words).await, "OK");
    elector.leave(&ticket).await.unwrap();
    let error = try_ask(owner, &words).await.unwrap_err().to_string();
    assert!(error.contains(sd_redis::TERM_OVER), "{error}");
}
