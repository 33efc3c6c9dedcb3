//! From register to seen, beside a raw etcd-client that sends the same requests.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::{instance, is_live_with, prefix, raw, registry, server, until};
use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp, WatchOptions, WatchStream};
use sd_core::{Registry, Subscription};
use tokio::time::{Instant, sleep};

const SAMPLES: usize = 200;
/// Longer than a burst of changes is waited for, so that each sample is the first change after quiet.
const PAUSE: Duration = Duration::from_millis(30);

async fn ours(registry: &Registry, seen: &mut Subscription) -> Duration {
    let since = Instant::now();
    let guard = registry.register(instance(1)).await.unwrap();
    until(seen, "seen", is_live_with(1)).await;
    let took = since.elapsed();
    sleep(PAUSE).await;
    guard.deregister().await.unwrap();
    until(seen, "gone", is_live_with(0)).await;
    took
}

/// A grant, a guarded put, an event.
async fn theirs(client: &mut Client, events: &mut WatchStream, prefix: &str) -> Duration {
    let since = Instant::now();
    let record = instance(1);
    let key = format!("{prefix}/greeter/{}", record.id());
    let value = serde_json::to_vec(&record).unwrap();
    let lease = client.lease_grant(10, None).await.unwrap().id();
    let attached = PutOptions::new().with_lease(lease);
    let txn = Txn::new()
        .when([Compare::mod_revision(key.as_str(), CompareOp::Equal, 0)])
        .and_then([TxnOp::put(key.as_str(), value, Some(attached))]);
    assert!(client.txn(txn).await.unwrap().succeeded());
    let event = events.message().await.unwrap().unwrap();
    assert_eq!(event.events().len(), 1);
    let took = since.elapsed();
    sleep(PAUSE).await;
    client.lease_revoke(lease).await.unwrap();
    events.message().await.unwrap().unwrap();
    took
}

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort();
    samples[samples.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd of any version: cargo xtask test --backend etcd"]
async fn from_register_to_seen_takes_as_long_as_with_a_raw_client() {
    let (our_prefix, their_prefix) = (prefix(), prefix());
    let (writer, reader) = (registry(&our_prefix), registry(&our_prefix));
    let mut seen = reader.subscribe("greeter").unwrap();
    until(&mut seen, "known", is_live_with(0)).await;

    let (mut client, mut watching) = (raw(&server()).await, raw(&server()).await);
    let options = WatchOptions::new().with_prefix();
    let mut events = watching
        .watch(format!("{their_prefix}/"), Some(options))
        .await
        .unwrap();
    assert!(events.message().await.unwrap().unwrap().created());

    let (mut ours_took, mut theirs_took) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        ours_took.push(ours(&writer, &mut seen).await);
        theirs_took.push(theirs(&mut client, &mut events, &their_prefix).await);
    }
    let (ours, theirs) = (median(ours_took), median(theirs_took));
    println!("register to seen, median of {SAMPLES}: ours {ours:?}, raw etcd-client {theirs:?}");
    // The bar is 1.1, measured by `cargo xtask bench`. This one only catches a wait that has crept in, in a debug build on
    // a busy machine.
    assert!(
        ours < theirs * 2,
        "ours {ours:?}, raw etcd-client {theirs:?}"
    );
}
