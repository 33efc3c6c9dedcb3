//! What happens when the server dies, freezes, forgets or is cut off, through the whole stack and over a real etcd.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::{
    BACK_WITHIN, LONG, TTL, event, events_after, eventually, instance, is_live_with, is_stale,
    keys, leases, own_server, own_server_behind_proxy, prefix, raw, registry_at, revision, ttl,
    until,
};
use sd_core::testing::{Direction, EtcdServer, Fault};
use sd_core::{RegistrationGuard, Registry, Subscription};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// One instance registered, and a reader that has seen it.
struct Stage {
    registry: Registry,
    guard: RegistrationGuard,
    seen: Subscription,
    prefix: String,
}

async fn stage(url: &str, time_to_live: Duration) -> Stage {
    let prefix = prefix();
    let registry = registry_at(url, &prefix);
    let mut guard = registry
        .register_with(instance(1), ttl(time_to_live))
        .await
        .unwrap();
    event(&mut guard, "registered").await;
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    Stage {
        registry,
        guard,
        seen,
        prefix,
    }
}

/// The reader says why it is stale and keeps the last set.
async fn goes_stale(seen: &mut Subscription) {
    let state = until(seen, "stale", is_stale).await;
    assert_eq!(state.snapshot().len(), 1);
    assert!(
        !state
            .status()
            .error()
            .unwrap()
            .report()
            .to_string()
            .is_empty()
    );
}

/// The key is at the server again soon, and the reader right by itself.
async fn comes_back(server: &EtcdServer, stage: &mut Stage, since: Instant) {
    let url = server.program().url();
    let raw = raw(&url).await;
    eventually("registered again", LONG, async || {
        keys(&mut raw.clone(), &stage.prefix).await.len() == 1
    })
    .await;
    let took = since.elapsed();
    assert!(took < BACK_WITHIN, "registered again after {took:?}");
    until(&mut stage.seen, "right again", is_live_with(1)).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn killed_and_restarted_with_its_data_nothing_flaps() {
    let mut server = own_server().await;
    let url = server.program().url();
    let mut stage = stage(&url, TTL).await;
    let before = revision(&mut raw(&url).await).await;

    server.kill().unwrap();
    goes_stale(&mut stage.seen).await;
    event(&mut stage.guard, "at_risk").await;
    server.restart().await.unwrap();

    let events = event(&mut stage.guard, "recovered").await;
    assert_eq!(events.len(), 1, "{events:?}");
    until(&mut stage.seen, "live", is_live_with(1)).await;
    let flaps = events_after(&mut raw(&url).await, &stage.prefix, before).await;
    assert_eq!(flaps, []);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn restarted_without_its_data_everything_is_there_again() {
    let mut server = own_server().await;
    let url = server.program().url();
    let mut stage = stage(&url, TTL).await;

    server.kill().unwrap();
    goes_stale(&mut stage.seen).await;
    server.restart_empty().await.unwrap();
    let since = Instant::now();
    comes_back(&server, &mut stage, since).await;
}

/// The cluster id does not tell an emptied server from the one before. Nor does the revision, once the new one is as far.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_server_that_lost_its_data_and_was_written_to_since_is_read_anew() {
    let (mut server, proxy, url) = own_server_behind_proxy().await;
    let mut stage = stage(&url, TTL).await;
    let known = stage.seen.state().snapshot().revision().clone();
    proxy.set(Fault::Cut);
    goes_stale(&mut stage.seen).await;

    server.restart_empty().await.unwrap();
    let mut operator = raw(&server.program().url()).await;
    let mut now = 0;
    while now <= known.value().cast_signed() {
        let put = operator.put("/elsewhere", "x", None).await.unwrap();
        now = put.header().unwrap().revision();
    }
    let other = instance(2);
    let key = format!("{}/greeter/{}", stage.prefix, other.id());
    let value = serde_json::to_vec(&other).unwrap();
    operator.put(key, value, None).await.unwrap();

    proxy.set(Fault::Pass);
    let read = until(&mut stage.seen, "read anew", is_live_with(2)).await;
    assert!(read.snapshot().get(other.id()).is_some());
    assert_eq!(read.snapshot().revision().domain(), known.domain());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn frozen_for_longer_than_the_lease_the_registration_is_back_soon() {
    let server = own_server().await;
    let mut stage = stage(&server.program().url(), TTL).await;

    server.freeze().unwrap();
    goes_stale(&mut stage.seen).await;
    sleep(TTL * 2).await;
    server.thaw().unwrap();
    let since = Instant::now();

    // The server may first take a renewal and then end the lease after all, so only what holds at the end of the time counts.
    sleep_until(since + BACK_WITHIN).await;
    let mut raw = raw(&server.program().url()).await;
    assert_eq!(keys(&mut raw, &stage.prefix).await.len(), 1);
    until(&mut stage.seen, "right again", is_live_with(1)).await;
    drop(stage.guard);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn cut_off_for_less_than_the_lease_nothing_flaps() {
    let (server, proxy, url) = own_server_behind_proxy().await;
    let direct = server.program().url();
    let mut stage = stage(&url, TTL * 3).await;
    let before = revision(&mut raw(&direct).await).await;

    proxy.set(Fault::Cut);
    goes_stale(&mut stage.seen).await;
    event(&mut stage.guard, "at_risk").await;
    proxy.set(Fault::Pass);

    event(&mut stage.guard, "recovered").await;
    until(&mut stage.seen, "live", is_live_with(1)).await;
    let flaps = events_after(&mut raw(&direct).await, &stage.prefix, before).await;
    assert_eq!(flaps, []);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn in_a_black_hole_for_longer_than_the_lease_the_registration_is_back_soon() {
    let (server, proxy, url) = own_server_behind_proxy().await;
    let mut stage = stage(&url, TTL).await;

    proxy.set(Fault::BlackHole);
    goes_stale(&mut stage.seen).await;
    let direct = raw(&server.program().url()).await;
    eventually("expired", LONG, async || {
        keys(&mut direct.clone(), &stage.prefix).await.is_empty()
    })
    .await;
    proxy.set(Fault::Pass);
    let since = Instant::now();
    comes_back(&server, &mut stage, since).await;
}

/// The kernel takes what we send and nothing comes back, HTTP/2 pings included.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_server_whose_answers_are_held_back_is_found_out() {
    let (_server, proxy, url) = own_server_behind_proxy().await;
    let mut stage = stage(&url, TTL * 3).await;
    proxy.set(Fault::Hold(Direction::ToClient));
    goes_stale(&mut stage.seen).await;
    proxy.set(Fault::Pass);
    until(&mut stage.seen, "live", is_live_with(1)).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn compacted_while_we_were_away_the_difference_is_published() {
    let (server, proxy, url) = own_server_behind_proxy().await;
    let mut stage = stage(&url, TTL * 5).await;
    proxy.set(Fault::Cut);
    goes_stale(&mut stage.seen).await;

    let mut operator = raw(&server.program().url()).await;
    let there = registry_at(&server.program().url(), &stage.prefix);
    let gone = there.register(instance(2)).await.unwrap();
    let stays = there.register(instance(3)).await.unwrap();
    gone.deregister().await.unwrap();
    let now = revision(&mut operator).await;
    operator.compact(now, None).await.unwrap();

    proxy.set(Fault::Pass);
    let read = until(&mut stage.seen, "right again", is_live_with(2)).await;
    assert!(read.snapshot().get(&stays.record_id().id).is_some());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_registry_that_is_down_at_the_start_delays_nobody() {
    let mut server = own_server().await;
    let url = server.program().url();
    server.kill().unwrap();

    let since = Instant::now();
    let prefix = prefix();
    let registry = registry_at(&url, &prefix);
    let mut seen = registry.subscribe("greeter").unwrap();
    let mut guard = registry
        .register_in_background(instance(1), ttl(TTL))
        .unwrap();
    assert!(since.elapsed() < Duration::from_secs(1));
    let state = until(&mut seen, "explained", |state| {
        state.status().error().is_some()
    })
    .await;
    assert_eq!(state.status().as_str(), "initializing");

    server.restart().await.unwrap();
    let since = Instant::now();
    event(&mut guard, "registered").await;
    assert!(since.elapsed() < BACK_WITHIN, "{:?}", since.elapsed());
    until(&mut seen, "there", is_live_with(1)).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn dropping_everything_leaves_no_key_no_lease_and_no_socket() {
    let (server, proxy, url) = own_server_behind_proxy().await;
    let direct = raw(&server.program().url()).await;
    // Also connects the raw client, whose tasks do not count.
    assert_eq!(leases(&mut direct.clone()).await, 0);
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let mut stage = stage(&url, TTL * 10).await;
    // Also after trouble that made us connect and register again.
    proxy.cut_connections();
    goes_stale(&mut stage.seen).await;
    until(&mut stage.seen, "live", is_live_with(1)).await;
    assert_eq!(leases(&mut direct.clone()).await, 1);

    let Stage {
        registry,
        guard,
        seen,
        prefix,
    } = stage;
    drop((guard, seen, registry));
    let limit = Duration::from_secs(1) + Duration::from_secs(1);
    timeout(limit, proxy.counted(|counts| counts.open == 0))
        .await
        .expect("a socket is left");
    assert!(keys(&mut direct.clone(), &prefix).await.is_empty());
    assert_eq!(leases(&mut direct.clone()).await, 0);
    eventually("all tasks ended", limit, async || tasks() == before).await;
}
