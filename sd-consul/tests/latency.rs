//! From register to seen, and from resign to the next leader, beside a raw HTTP client that sends what Consul's own clients send.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::election::{Booth, after, first, leads, prefix, ticket, waits};
use common::operator::plain_id;
use common::{Operator, instance, is_live_with, registry_at, server, service, until};
use sd_core::{Registry, ServiceName, Subscription};
use serde_json::json;
use tokio::time::{Instant, sleep};

const SAMPLES: usize = 100;
/// Longer than a burst of changes is waited for, so that each sample is the first change after quiet.
const PAUSE: Duration = Duration::from_millis(30);

async fn ours(registry: &Registry, service: &ServiceName, seen: &mut Subscription) -> Duration {
    let (since, registry) = (Instant::now(), registry.clone());
    let one = instance(service, 1);
    let registering = tokio::spawn(async move { registry.register(one).await.unwrap() });
    until(seen, "seen", is_live_with(1)).await;
    let took = since.elapsed();
    let guard = registering.await.unwrap();
    sleep(PAUSE).await;
    guard.deregister().await.unwrap();
    until(seen, "gone", is_live_with(0)).await;
    took
}

/// One registration, and one blocking query that waits for it.
async fn theirs(operator: &Operator, service: &ServiceName) -> Duration {
    let target = format!("/v1/health/service/{service}?passing");
    let index = operator.index(&target).await;
    let waiting = operator.clone();
    let blocking = format!("{target}&index={index}&wait=55s");
    let seen = tokio::spawn(async move { waiting.get(&blocking).await });
    sleep(PAUSE).await;
    let id = plain_id(service, &format!("{:x}", fastrand::u32(..)));
    let body = json!({"Name": service.as_str(), "ID": id, "Address": "10.0.0.1", "Port": 1,
        "Check": {"TTL": "10s", "Status": "passing", "DeregisterCriticalServiceAfter": "1m"}});
    let since = Instant::now();
    operator
        .put("/v1/agent/service/register", &body.to_string())
        .await;
    let found = seen.await.unwrap();
    let took = since.elapsed();
    assert_eq!(found.as_array().unwrap().len(), 1);
    operator.remove(service, &id).await;
    took
}

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort();
    samples[samples.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn from_register_to_seen_takes_as_long_as_with_a_raw_client() {
    let (writer, reader) = (registry_at(&server()), registry_at(&server()));
    let (own, other, operator) = (service(), service(), Operator::at(&server()));
    let mut seen = reader.subscribe(&own).unwrap();
    until(&mut seen, "known", is_live_with(0)).await;
    let (mut ours_took, mut theirs_took) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        ours_took.push(ours(&writer, &own, &mut seen).await);
        theirs_took.push(theirs(&operator, &other).await);
    }
    let (ours, theirs) = (median(ours_took), median(theirs_took));
    println!("register to seen, median of {SAMPLES}: ours {ours:?}, raw HTTP {theirs:?}");
    // The bar is 1.1, measured by `cargo xtask bench`. This one only catches a wait that has crept in, in a debug build on
    // a busy machine.
    assert!(ours < theirs * 2, "ours {ours:?}, raw HTTP {theirs:?}");
}

/// As Consul's own lock does it: release, a blocking query that waits for it, acquire.
async fn their_handover(operator: &Operator, key: &str, from: &str, to: &str) -> Duration {
    let target = format!("/v1/kv/{key}");
    let index = operator.index(&target).await;
    let (waiting, next) = (operator.clone(), to.to_owned());
    let path = target.clone();
    let led = tokio::spawn(async move {
        waiting.get(&format!("{path}?index={index}&wait=15s")).await;
        let acquired = waiting.put(&format!("{path}?acquire={next}"), "b").await;
        assert_eq!(acquired, true);
    });
    sleep(PAUSE).await;
    let since = Instant::now();
    operator.put(&format!("{target}?release={from}"), "a").await;
    led.await.unwrap();
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn from_resign_to_the_next_leader_takes_as_long_as_with_a_raw_client() {
    let (booth, operator) = (Booth::at(&server()), Operator::at(&server()));
    let electors = [booth.elector(), booth.elector()];
    let key = format!("{}-raw", prefix());
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let session = r#"{"TTL":"300s","NodeChecks":[]}"#;
        let made = operator.put("/v1/session/create", session).await;
        sessions.push(made["ID"].as_str().unwrap().to_owned());
    }
    let acquired = operator
        .put(&format!("/v1/kv/{key}?acquire={}", sessions[0]), "a")
        .await;
    assert_eq!(acquired, true);
    let mut holder = ticket("a");
    leads(&*electors[0].join(&holder).await.unwrap()).await;
    let (mut ours_took, mut theirs_took) = (Vec::new(), Vec::new());
    for round in 0..SAMPLES {
        let (this, next) = (&electors[round % 2], &electors[(round + 1) % 2]);
        let waiter_ticket = ticket("b");
        let waiter = next.join(&waiter_ticket).await.unwrap();
        let waiting = waits(&*waiter).await;
        let led = tokio::spawn(async move {
            first(after(&*waiter, &waiting).await);
        });
        sleep(PAUSE).await;
        let (since, leaving) = (Instant::now(), std::sync::Arc::clone(this));
        let left = tokio::spawn(async move { leaving.leave(&holder).await.unwrap() });
        led.await.unwrap();
        ours_took.push(since.elapsed());
        left.await.unwrap();
        holder = waiter_ticket;
        let (from, to) = (&sessions[round % 2], &sessions[(round + 1) % 2]);
        theirs_took.push(their_handover(&operator, &key, from, to).await);
    }
    let (ours, theirs) = (median(ours_took), median(theirs_took));
    println!("resign to the next leader, median of {SAMPLES}: ours {ours:?}, raw HTTP {theirs:?}");
    assert!(ours < theirs * 2, "ours {ours:?}, raw HTTP {theirs:?}");
}
