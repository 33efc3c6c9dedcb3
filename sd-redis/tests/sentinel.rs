//! A primary with a replica, watched by three Sentinels: the primary is killed, and comes back as one for a while. Everything is done by a
//! user with the rights of the README.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::election::{Booth, LASTING, first, leads, ticket_for, told_at_last, waits};
use common::group::{
    ask, is_denied_nothing, registry, registry_with, scripts_run, sentinels, sentinels_url,
    until_replicated, until_role, until_taken_over,
};
use common::rights::USER;
use common::{LONG, TTL, eventually, instance, is_live_with, until};
use sd_core::ErrorKind;
use sd_redis::RedisConfig;

/// For the seconds until the Sentinels tell it that it is a replica, the former primary takes writes, and they would be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_former_primary_that_is_back_gets_no_request_and_readers_are_told_at_once_again() {
    let mut group = sentinels().await;
    let url = sentinels_url(&group);
    // What this one sees, it is told.
    let reader = registry_with(&url, |config| {
        config.with_poll_interval(Duration::from_secs(3600))
    });
    let owner = registry(&url);
    let _kept = owner.register(instance(1)).await.unwrap();
    let mut seen = reader.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    let [primary, replica] = [0, 1].map(|member| group.members()[member].program().clone());
    until_replicated(&primary, &replica).await;

    group.members_mut()[0].kill().unwrap();
    until_taken_over(&group).await;
    group.members_mut()[0].restart().await.unwrap();
    until_role(&primary, "master").await;

    // Core pauses between its attempts while there is no primary.
    until(&mut seen, "live", is_live_with(1)).await;
    for number in 2..5 {
        let guard = owner.register(instance(number)).await.unwrap();
        until(&mut seen, "two", is_live_with(2)).await;
        guard.deregister().await.unwrap();
        until(&mut seen, "one", is_live_with(1)).await;
    }
    assert_eq!(scripts_run(&primary).await, 0);
    is_denied_nothing(&group).await;
}

/// A primary and a Sentinel, as on a machine that has lost its network. A process that only registers is told of nothing, and its attempts
/// are given up before they fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn servers_that_swallow_everything_are_left_by_a_process_that_only_registers() {
    let group = sentinels().await;
    let config = RedisConfig::from_url(&sentinels_url(&group)).unwrap();
    let config = config.with_ttl(TTL).with_connect_timeout(LONG);
    let owner = sd_redis::connect(config.with_request_timeout(LONG)).unwrap();
    let _kept = owner.register(instance(1)).await.unwrap();
    // The Sentinel that is asked first, and the primary.
    for member in [2, 0] {
        group.members()[member].freeze().unwrap();
    }
    until_role(group.members()[1].program(), "master").await;
    let second = owner.register(instance(2)).confirm_within(LONG).await;
    second.unwrap();
    for member in [2, 0] {
        group.members()[member].thaw().unwrap();
    }
}

/// With TLS each would cost much, and a Sentinel has few connections to give.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_sentinel_is_asked_again_over_the_connection_that_is_there() {
    let group = sentinels().await;
    let owner = registry(&sentinels_url(&group));
    let ours = async || {
        let mut ours = Vec::new();
        for sentinel in &group.members()[2..] {
            let clients = ask(sentinel.program(), &["CLIENT", "LIST"]).await;
            let lines = clients.lines();
            let lines = lines.filter(|line| line.contains(&format!("user={USER} ")));
            ours.extend(lines.map(str::to_owned));
        }
        ours
    };
    let value = |client: &str, name: &str| {
        let word = client.split(' ').find_map(|word| word.strip_prefix(name));
        word.unwrap().parse::<u64>().unwrap()
    };
    owner.list("greeter").await.unwrap();
    let [first] = ours().await.try_into().unwrap();
    let id = value(&first, "id=");
    let is_asked_again = async || {
        owner.list("greeter").await.unwrap();
        let ours = ours().await;
        assert!(
            ours.iter().all(|client| value(client, "id=") == id),
            "{ours:?}"
        );
        // It was made some seconds ago, and used since then.
        let is_used = |client: &String| value(client, "age=") > value(client, "idle=") + 2;
        ours.iter().any(is_used)
    };
    eventually("asked again", LONG, is_asked_again).await;
}

/// What the replica has is not lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn an_election_goes_on_at_the_replica_that_has_taken_over() {
    let mut group = sentinels().await;
    let booth = Booth::alone(&sentinels_url(&group));
    let (one, two) = (booth.elector(), booth.elector());
    let (a, b) = (ticket_for("a", LASTING), ticket_for("b", LASTING));
    let leader = one.join(&a).await.unwrap();
    let token = leads(&*leader).await;
    let next = two.join(&b).await.unwrap();
    let waiting = waits(&*next).await;
    let [primary, replica] = [0, 1].map(|member| group.members()[member].program().clone());
    until_replicated(&primary, &replica).await;

    group.members_mut()[0].kill().unwrap();
    let error = leader.confirm().await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout),
        "{}",
        error.report()
    );
    until_taken_over(&group).await;
    group.members_mut()[0].restart().await.unwrap();
    for entry in [&leader, &next] {
        eventually("confirmed", LONG, async || entry.confirm().await.is_ok()).await;
    }
    assert_eq!(leads(&*leader).await, token);
    let leaving = async {
        eventually("left", LONG, async || one.leave(&a).await.is_ok()).await;
    };
    let (told, ()) = tokio::join!(told_at_last(&*next, &waiting), leaving);
    assert!(first(told).0 > token);
    next.confirm().await.unwrap();
    assert_eq!(scripts_run(&primary).await, 0);
}

/// As if the primary had been lost before its replica heard of the leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_leader_that_the_replica_has_never_heard_of_is_told_so_and_tokens_grow() {
    let mut group = sentinels().await;
    let booth = Booth::alone(&sentinels_url(&group));
    let elector = booth.elector();
    let [primary, replica] = [0, 1].map(|member| group.members()[member].program().clone());
    let before = ticket_for("before", LASTING);
    leads(&*elector.join(&before).await.unwrap()).await;
    elector.leave(&before).await.unwrap();
    until_replicated(&primary, &replica).await;
    // The replica cannot follow the primary any more, which has no password.
    ask(&replica, &["CONFIG", "SET", "masterauth", "wrong"]).await;
    ask(&replica, &["CLIENT", "KILL", "TYPE", "master"]).await;
    let ticket = ticket_for("a", LASTING);
    let entry = elector.join(&ticket).await.unwrap();
    let token = leads(&*entry).await;
    group.members_mut()[0].kill().unwrap();
    until_role(&replica, "master").await;
    let gone = async || {
        let error = entry.confirm().await.err();
        error
            .is_some_and(|error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::LeaseLost))
    };
    eventually("gone", LONG, gone).await;
    let next = elector.join(&ticket_for("b", LASTING)).await.unwrap();
    let later = leads(&*next).await;
    assert!(later > token, "{later:?} {token:?}");
}
