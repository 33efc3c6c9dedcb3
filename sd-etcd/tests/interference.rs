//! What operators and other programs do to our records, over a running etcd.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;

use common::{
    BACK_WITHIN, TTL, entries, event, events_after, eventually, instance, is_live_with, keys,
    prefix, raw, registry, revision, server, until,
};
use etcd_client::{EventType, PutOptions};
use sd_core::port::{Attempt, Liveness};
use sd_core::{Backend, ErrorKind, Incarnation, Registrar};
use sd_etcd::EtcdBackend;
use tokio::time::Instant;

fn registrar(prefix: &str) -> Arc<dyn Registrar> {
    let backend = Arc::new(EtcdBackend::new(common::config(prefix)).unwrap());
    backend.registrar().unwrap()
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_lease_that_an_operator_revokes_is_replaced() {
    let (prefix, mut operator) = (prefix(), raw(&server()).await);
    let mut guard = registry(&prefix)
        .register(instance(1))
        .ttl(TTL)
        .await
        .unwrap();
    event(&mut guard, "registered").await;
    let lease = entries(&mut operator, &prefix).await[0].lease();

    operator.lease_revoke(lease).await.unwrap();
    let since = Instant::now();
    event(&mut guard, "lost").await;
    event(&mut guard, "registered").await;
    assert!(since.elapsed() < BACK_WITHIN, "{:?}", since.elapsed());
    assert_ne!(entries(&mut operator, &prefix).await[0].lease(), lease);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_key_that_an_operator_deletes_is_put_again_on_the_same_lease() {
    let (prefix, mut operator) = (prefix(), raw(&server()).await);
    let mut guard = registry(&prefix)
        .register(instance(1))
        .ttl(TTL)
        .await
        .unwrap();
    event(&mut guard, "registered").await;
    let before = entries(&mut operator, &prefix).await.remove(0);

    operator.delete(before.key(), None).await.unwrap();
    let since = Instant::now();
    event(&mut guard, "lost").await;
    event(&mut guard, "registered").await;
    assert!(since.elapsed() < BACK_WITHIN, "{:?}", since.elapsed());
    let after = entries(&mut operator, &prefix).await.remove(0);
    assert_eq!(
        (after.value(), after.lease()),
        (before.value(), before.lease())
    );
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn an_unreadable_entry_is_skipped_named_and_mended_while_the_others_stay() {
    let (prefix, mut operator) = (prefix(), raw(&server()).await);
    let registry = registry(&prefix);
    let _guard = registry.register(instance(1)).await.unwrap();
    let broken = format!("{prefix}/greeter/broken");
    operator
        .put(broken.as_str(), "not a record", None)
        .await
        .unwrap();

    let mut seen = registry.subscribe("greeter").unwrap();
    let state = until(&mut seen, "known", is_live_with(1)).await;
    assert_eq!(state.snapshot().skipped()[0].key, broken);
    // And one that breaks while we look.
    let odd = [b"/greeter/".as_slice(), b"\xff\xfe"].concat();
    let odd = [prefix.as_bytes(), odd.as_slice()].concat();
    operator
        .put(odd.as_slice(), "10.0.0.9:1", None)
        .await
        .unwrap();
    until(&mut seen, "skipped", |state| {
        state.snapshot().skipped().len() == 2
    })
    .await;
    operator.delete(odd.as_slice(), None).await.unwrap();
    until(&mut seen, "forgotten", |state| {
        state.snapshot().skipped().len() == 1
    })
    .await;

    operator
        .put(broken.as_str(), "10.0.0.2:2", None)
        .await
        .unwrap();
    let state = until(&mut seen, "mended", is_live_with(2)).await;
    assert!(state.snapshot().skipped().is_empty());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_successors_record_is_never_touched() {
    let (prefix, mut operator) = (prefix(), raw(&server()).await);
    let registrar = registrar(&prefix);
    let ours = instance(1);
    let held = registrar.register(&ours, &Attempt::new(TTL)).await.unwrap();
    let key = keys(&mut operator, &prefix).await.remove(0);
    // As after a pause in which our lease ended and another took the id.
    let theirs = ours.clone().with_incarnation(Incarnation::from_u64(42));
    let value = serde_json::to_vec(&theirs).unwrap();
    operator
        .put(key.as_str(), value.clone(), None)
        .await
        .unwrap();
    let before = revision(&mut operator).await;

    for error in [
        held.renew().await.unwrap_err(),
        held.update(&ours).await.unwrap_err(),
        registrar
            .register(&ours, &Attempt::new(TTL))
            .await
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
    }
    registrar.withdraw(&ours.record_id()).await.unwrap();
    assert_eq!(events_after(&mut operator, &prefix, before).await, []);
    assert_eq!(entries(&mut operator, &prefix).await[0].value(), value);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn registering_again_writes_nothing_and_takes_no_second_lease() {
    let (prefix, mut operator) = (prefix(), raw(&server()).await);
    let registrar = registrar(&prefix);
    let ours = instance(1);
    let first = registrar.register(&ours, &Attempt::new(TTL)).await.unwrap();
    let lease = entries(&mut operator, &prefix).await[0].lease();
    let before = revision(&mut operator).await;
    registrar.register(&ours, &Attempt::new(TTL)).await.unwrap();
    assert_eq!(events_after(&mut operator, &prefix, before).await, []);

    // A changed record replaces the first in place.
    let changed = ours.clone().with_weight(7);
    registrar
        .register(&changed, &Attempt::new(TTL))
        .await
        .unwrap();
    let stored = entries(&mut operator, &prefix).await.remove(0);
    assert_eq!((stored.lease(), stored.version()), (lease, 2));
    let renewed = first.renew().await.unwrap();
    assert_eq!(renewed.liveness, Liveness::Lease { ttl: TTL });

    registrar.withdraw(&ours.record_id()).await.unwrap();
    registrar.withdraw(&ours.record_id()).await.unwrap();
    let left = operator.lease_time_to_live(lease, None).await.unwrap();
    assert_eq!(left.ttl(), -1);
}

/// A withdrawal that died half way leaves a record that everybody takes for gone.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_record_under_withdrawal_counts_as_gone_and_may_be_taken_over() {
    let (prefix, mut operator) = (prefix(), raw(&server()).await);
    let (registrar, registry) = (registrar(&prefix), registry(&prefix));
    let mut seen = registry.subscribe("greeter").unwrap();
    let old = instance(1);
    registrar.register(&old, &Attempt::new(TTL)).await.unwrap();
    until(&mut seen, "there", is_live_with(1)).await;

    let stored = entries(&mut operator, &prefix).await.remove(0);
    let mut record: serde_json::Value = serde_json::from_slice(stored.value()).unwrap();
    record["withdrawn"] = true.into();
    let keep_lease = PutOptions::new().with_ignore_lease();
    operator
        .put(stored.key(), record.to_string(), Some(keep_lease))
        .await
        .unwrap();
    let state = until(&mut seen, "gone", is_live_with(0)).await;
    assert_eq!(state.snapshot().withdrawn(), [old.id().clone()]);

    let new = old.clone().with_incarnation(Incarnation::from_u64(42));
    let guard = registry.register(new.clone()).await.unwrap();
    let state = until(&mut seen, "taken over", is_live_with(1)).await;
    assert_eq!(*state.snapshot().instances()[0], new);
    // The one that died half way comes back to finish.
    registrar.withdraw(&old.record_id()).await.unwrap();
    assert_eq!(keys(&mut operator, &prefix).await.len(), 1);
    drop(guard);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn withdrawing_tells_readers_before_it_deletes() {
    let (prefix, mut operator) = (prefix(), raw(&server()).await);
    let guard = registry(&prefix).register(instance(1)).await.unwrap();
    let key = keys(&mut operator, &prefix).await.remove(0);
    let before = revision(&mut operator).await;
    guard.deregister().await.unwrap();
    let seen = events_after(&mut operator, &prefix, before).await;
    assert_eq!(
        seen,
        [(EventType::Put, key.clone()), (EventType::Delete, key)]
    );
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn the_time_to_live_counts_in_whole_seconds_and_ends_a_record_that_is_not_renewed() {
    let (prefix, operator) = (prefix(), raw(&server()).await);
    let registrar = registrar(&prefix);
    let asked = std::time::Duration::from_millis(2100);
    let held = registrar
        .register(&instance(1), &Attempt::new(asked))
        .await
        .unwrap();
    assert_eq!(held.liveness(), Liveness::Lease { ttl: TTL });
    let too_short = TTL / 3;
    let registry = registry(&prefix);
    let refused = registry.register(instance(2)).ttl(too_short).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    drop(held);
    eventually("expired", common::LONG, async || {
        keys(&mut operator.clone(), &prefix).await.is_empty()
    })
    .await;
}
