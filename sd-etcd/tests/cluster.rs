//! Clusters whose members are replaced, and etcd's own proxy, through the whole stack.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::cluster::{Cluster, GrpcProxy};
use common::election::{Booth, after, first, gone, leads, ticket, waits};
use common::{
    LONG, TTL, config_at, event, eventually, instance, is_live_with, own_server, prefix, raw,
    registry_at, until,
};
use sd_core::{Registry, Subscription};
use server_programs::LocalServer;
use tokio::time::{Instant, sleep, timeout};

/// The members are asked for every 5 s, as keep-alives are set here.
const LEARNT_WITHIN: Duration = Duration::from_secs(12);

/// How often a connection is asked for a sign of life. Long enough that a busy machine answers in time.
const INTERVAL: Duration = Duration::from_secs(2);

/// Fails if the feed is seen to be anything but live for this long, in which it must be asked several times whether it is there.
async fn stays_live(seen: &mut Subscription, time: Duration) {
    let until = Instant::now() + time;
    while let Ok(changed) = timeout(until - Instant::now(), seen.changed()).await {
        let state = changed.unwrap();
        assert_eq!(state.status().as_str(), "live", "{state:?}");
    }
}

/// The proxy answers no request for a watch's progress, and merges the watches of all its clients.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn behind_etcds_own_proxy_a_quiet_feed_stays_live_and_goes_on() {
    let mut server = own_server().await;
    let proxy = GrpcProxy::start(server.program().address()).await;
    let (prefix, url) = (prefix(), proxy.program().url());
    let patient = config_at(&url, &prefix).with_keep_alive(INTERVAL, INTERVAL * 2);
    let registries = [(); 2].map(|()| sd_etcd::connect(patient.clone()).unwrap());
    let guard = registries[0]
        .register(instance(1))
        .ttl(TTL * 5)
        .await
        .unwrap();
    let mut seen = registries
        .each_ref()
        .map(|one| one.subscribe("greeter").unwrap());
    for seen in &mut seen {
        until(seen, "there", is_live_with(1)).await;
    }
    // Silence would be noticed after four intervals.
    let [one, two] = &mut seen;
    tokio::join!(stays_live(one, INTERVAL * 8), stays_live(two, INTERVAL * 8));
    guard.set_ready(false).await.unwrap();
    for seen in &mut seen {
        until(seen, "unready", |state| {
            state.snapshot().instances().iter().any(|i| !i.is_ready())
        })
        .await;
    }

    // The proxy lives on, and says nothing of its server.
    server.kill().unwrap();
    for seen in &mut seen {
        until(seen, "stale", |state| state.status().as_str() == "stale").await;
    }
    server.restart().await.unwrap();
    for seen in &mut seen {
        until(seen, "live again", is_live_with(1)).await;
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn behind_etcds_own_proxy_the_next_in_line_leads_and_the_one_that_is_removed_does_not() {
    let server = own_server().await;
    let proxy = GrpcProxy::start(server.program().address()).await;
    let booth = Booth::at(&proxy.program().url());
    let electors = [(); 3].map(|()| booth.elector());
    let tickets = ["a", "b", "c"].map(ticket);
    let leader = electors[0].join(&tickets[0]).await.unwrap();
    leads(&*leader).await;
    let next = electors[1].join(&tickets[1]).await.unwrap();
    let last = electors[2].join(&tickets[2]).await.unwrap();
    let (waiting, behind) = (waits(&*next).await, waits(&*last).await);
    let leave = electors[0].leave(&tickets[0]);
    let (told, left) = tokio::join!(after(&*next, &waiting), leave);
    left.unwrap();
    first(told);
    next.confirm().await.unwrap();
    let end = async {
        let key = format!(
            "{}/{}/.entries/{}",
            booth.prefix, tickets[2].name, tickets[2].id
        );
        let mut operator = raw(&server.program().url()).await;
        operator.delete(key, None).await.unwrap();
        electors[1].leave(&tickets[1]).await.unwrap();
    };
    let (told, ()) = tokio::join!(after(&*last, &behind), end);
    gone(told);
}

/// What another client registers is seen here.
async fn follows(registry: &Registry, seen: &mut Subscription, url: &str, prefix: &str, port: u16) {
    let other = registry_at(url, prefix);
    let guard = other.register(instance(port)).await.unwrap();
    let id = &guard.record_id().id;
    until(seen, "the other", |state| {
        state.status().as_str() == "live" && state.snapshot().get(id).is_some()
    })
    .await;
    guard.deregister().await.unwrap();
    // And writes find the way as well.
    let own = registry.register(instance(port + 100)).await.unwrap();
    own.deregister().await.unwrap();
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn every_member_that_was_named_may_be_replaced_where_members_are_followed() {
    let mut cluster = Cluster::start().await;
    let prefix = prefix();
    let named = cluster.url(0);
    let config = config_at(&named, &prefix).with_follow_members(true);
    let registry = sd_etcd::connect(config).unwrap();
    let mut guard = registry.register(instance(1)).ttl(TTL).await.unwrap();
    event(&mut guard, "registered").await;
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;

    // While it is connected to the one that is named, it must learn of the two that come.
    cluster.replace(1).await;
    cluster.replace(2).await;
    sleep(LEARNT_WITHIN).await;
    cluster.replace(0).await;
    follows(&registry, &mut seen, &cluster.url(1), &prefix, 2).await;
    // And now, from those that it has learnt of to those that came since.
    cluster.replace(1).await;
    cluster.replace(2).await;
    follows(&registry, &mut seen, &cluster.url(1), &prefix, 3).await;

    let id = guard.record_id().id.clone();
    eventually("still registered", LONG, || async {
        let listed = registry.list("greeter").await;
        listed.is_ok_and(|listed| listed.get(&id).is_some())
    })
    .await;
    assert!(raw(&named).await.get("none", None).await.is_err());
}
