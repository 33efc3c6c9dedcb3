//! What a user of the server may do: the rights that the README lists are enough, and a reader needs fewer.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::rights::{LOGIN, Rights, USER};
use common::{
    LONG, Operator, POLL, TTL, config_at, event, eventually, instance, is_live_with, own_server,
    registry_at, told, until,
};
use sd_core::{ErrorKind, Instance, Override, ServiceName};
use sd_redis::{DEFAULT_PREFIX, Format};
use server_programs::LocalServer;
use tokio::time::{Instant, sleep};

fn as_app(url: &str) -> String {
    url.replace("redis://", &format!("redis://{LOGIN}"))
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn with_the_rights_that_are_listed_everything_can_be_done() {
    let server = own_server().await;
    let url = server.program().url();
    let raw = Operator::at(&url).await;
    let words = [vec!["ACL", "SETUSER", USER], Rights::listed().services].concat();
    raw.ask::<()>(&words).await;
    let registry = registry_at(&as_app(&url), DEFAULT_PREFIX);
    registry.check().await.unwrap();
    let mut guard = registry.register(instance(1)).await.unwrap();
    let crashed = registry.register(instance(2)).await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "both", is_live_with(2)).await;
    let record = guard.record_id().clone();
    registry
        .set_override(&record, Override::Draining)
        .await
        .unwrap();
    event(&mut guard, "overridden").await;
    guard
        .update(|instance| instance.with_weight(7))
        .await
        .unwrap();
    // Nothing renews it any more.
    crashed.release().await.unwrap();
    until(&mut seen, "one", is_live_with(1)).await;
    assert_eq!(registry.services().await.unwrap().len(), 1);
    guard.deregister().await.unwrap();
    until(&mut seen, "none", is_live_with(0)).await;
    let denied = raw.denied().await;
    assert!(denied.is_empty(), "{denied:?}");
}

/// Where heartbeats lie, and nowhere else.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn with_the_rights_that_are_listed_for_heartbeats_they_are_written_and_told() {
    let server = own_server().await;
    let url = server.program().url();
    let raw = Operator::at(&url).await;
    let rights = Rights::listed();
    let is_of_services = |word: &&str| word.ends_with("services:*");
    let mut words = vec!["ACL", "SETUSER", USER];
    words.extend(rights.services.iter().filter(|word| !is_of_services(word)));
    words.extend(&rights.heartbeats);
    raw.ask::<()>(&words).await;
    let config = config_at(&as_app(&url), DEFAULT_PREFIX).with_format(Format::Heartbeat);
    // Nothing is found by asking now and then.
    let patient = config.with_poll_interval(TTL * 1000);
    let registry = sd_redis::connect(patient.with_heartbeat_ttl(TTL)).unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "none", is_live_with(0)).await;
    let guard = registry.register(instance(1)).await.unwrap();
    until(&mut seen, "one", is_live_with(1)).await;
    guard.deregister().await.unwrap();
    until(&mut seen, "none again", is_live_with(0)).await;
    let denied = raw.denied().await;
    assert!(denied.is_empty(), "{denied:?}");
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_user_that_may_only_read_sees_everything_and_what_has_ended_no_more() {
    let server = own_server().await;
    let url = server.program().url();
    let raw = Operator::at(&url).await;
    let words = [vec!["ACL", "SETUSER", USER], Rights::of_a_reader()].concat();
    raw.ask::<()>(&words).await;
    let reader = registry_at(&as_app(&url), DEFAULT_PREFIX);
    let writer = registry_at(&url, DEFAULT_PREFIX);
    let mut guard = writer.register(instance(1)).await.unwrap();
    let mut seen = reader.subscribe("greeter").unwrap();
    until(&mut seen, "one", is_live_with(1)).await;
    let crashed = writer.register(instance(2)).await.unwrap();
    until(&mut seen, "both", is_live_with(2)).await;
    crashed.release().await.unwrap();
    until(&mut seen, "one again", is_live_with(1)).await;
    // No other client has removed it, and the one that lives is not lost among what has ended.
    sleep(TTL).await;
    assert_eq!(seen.state().snapshot().len(), 1);
    assert_eq!(reader.services().await.unwrap().len(), 1);
    let refused = reader.register(instance(3)).confirm_within(TTL / 3).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Denied);
    told(&mut guard);
    guard.deregister().await.unwrap();
    until(&mut seen, "none", is_live_with(0)).await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_service_that_may_not_be_asked_after_hides_no_other() {
    let server = own_server().await;
    let url = server.program().url();
    let raw = Operator::at(&url).await;
    let (keys, list) = ("~services:{greeter}*", "%R~services:list");
    let user = [
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">password",
        keys,
        list,
        "&*",
        "+@all",
    ];
    raw.ask::<()>(&user).await;
    let writer = registry_at(&url, DEFAULT_PREFIX);
    let _shown = writer.register(instance(1)).await.unwrap();
    let hidden = Instance::new("hidden", "10.0.0.1:1").unwrap();
    let _hidden = writer.register(hidden).await.unwrap();
    let reader = registry_at(
        &url.replace("redis://", "redis://app:password@"),
        DEFAULT_PREFIX,
    );
    let listed = reader.list_services().await.unwrap();
    let names = listed.services.iter().map(ServiceName::as_str);
    assert_eq!(names.collect::<Vec<_>>(), ["greeter"]);
    assert_eq!(listed.unlisted, 1);
}

/// One service is changed by a user who may not publish, the other one by one who may.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_service_of_which_nothing_is_told_does_not_end_what_is_told_of_others() {
    let server = own_server().await;
    let url = server.program().url();
    let raw = Operator::at(&url).await;
    let words = [
        vec!["ACL", "SETUSER", USER],
        Rights::listed().services,
        vec!["resetchannels"],
    ]
    .concat();
    raw.ask::<()>(&words).await;
    // Often enough for a connection that is taken for deaf to be left soon.
    let poll = Duration::from_millis(100);
    let config = config_at(&url, DEFAULT_PREFIX).with_poll_interval(poll);
    let reader = sd_redis::connect(config).unwrap();
    let silent = registry_at(&as_app(&url), DEFAULT_PREFIX);
    let heard = registry_at(&url, DEFAULT_PREFIX);
    let mut of_silent = reader.subscribe("greeter").unwrap();
    let mut of_heard = reader.subscribe("heard").unwrap();
    until(&mut of_silent, "none", is_live_with(0)).await;
    until(&mut of_heard, "none", is_live_with(0)).await;
    let first = told_on(&raw).await;
    let since = Instant::now();
    let mut changes = 0;
    while changes < 8 || since.elapsed() < poll * 25 {
        let told = Instance::new("heard", "10.0.0.1:1").unwrap();
        let told = heard.register(told).await.unwrap();
        until(&mut of_heard, "told", is_live_with(1)).await;
        let untold = silent.register(instance(1)).await.unwrap();
        until(&mut of_silent, "one", is_live_with(1)).await;
        untold.deregister().await.unwrap();
        until(&mut of_silent, "none", is_live_with(0)).await;
        told.deregister().await.unwrap();
        until(&mut of_heard, "none again", is_live_with(0)).await;
        assert_eq!(told_on(&raw).await, first);
        changes += 2;
    }
}

/// The connection on which the server tells.
async fn told_on(raw: &Operator) -> Option<String> {
    let clients: String = raw.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]).await;
    let mut words = clients.split_whitespace();
    let id = words.find(|word| word.starts_with("id="));
    id.map(str::to_owned)
}

/// As behind a connection that tells nothing although it is pinged: readers cannot tell the two apart.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_reader_that_is_told_nothing_sees_changes_by_asking_and_makes_another_connection() {
    let server = own_server().await;
    let url = server.program().url();
    let raw = Operator::at(&url).await;
    let words = [
        vec!["ACL", "SETUSER", "app"],
        Rights::listed().services,
        vec!["resetchannels"],
    ]
    .concat();
    raw.ask::<()>(&words).await;
    let writer = registry_at(
        &url.replace("redis://", "redis://app:password@"),
        DEFAULT_PREFIX,
    );
    let reader = registry_at(&url, DEFAULT_PREFIX);
    let mut seen = reader.subscribe("greeter").unwrap();
    until(&mut seen, "none", is_live_with(0)).await;
    let first = told_on(&raw).await;
    let mut longest = Duration::ZERO;
    let since = Instant::now();
    while told_on(&raw).await == first {
        assert!(since.elapsed() < LONG, "the connection stays");
        let since = Instant::now();
        let guard = writer.register(instance(1)).await.unwrap();
        until(&mut seen, "one", is_live_with(1)).await;
        longest = longest.max(since.elapsed());
        guard.deregister().await.unwrap();
        until(&mut seen, "none", is_live_with(0)).await;
    }
    assert!(longest < POLL + LONG / 3, "{longest:?}");

    // Once there is something to be told, it is told.
    raw.ask::<()>(&["ACL", "SETUSER", "app", "&services:*"])
        .await;
    let is_told = async || {
        let since = Instant::now();
        let guard = writer.register(instance(1)).await.unwrap();
        until(&mut seen.clone(), "one", is_live_with(1)).await;
        let took = since.elapsed();
        guard.deregister().await.unwrap();
        until(&mut seen.clone(), "none", is_live_with(0)).await;
        took < POLL / 4
    };
    eventually("told at once", LONG, is_told).await;
}
