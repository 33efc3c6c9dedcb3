//! What operators say of records and where it is kept, over a running etcd.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::faults::OwnServer;
use common::{LONG, TTL, config, event, eventually, instance, keys, prefix, raw, registry, server};
use etcd_client::{KeyValue, PutOptions};
use sd_core::{ErrorKind, Override};
use sd_etcd::Format;
use sd_testing::faults;

async fn entry(prefix: &str, key: &str) -> Option<KeyValue> {
    let mut raw = raw(&server()).await;
    let found = common::entries(&mut raw, prefix).await;
    found.into_iter().find(|kv| kv.key() == key.as_bytes())
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn an_override_lies_beside_its_record_on_the_same_lease_and_goes_with_it() {
    let prefix = prefix();
    let (owner, operator) = (registry(&prefix), registry(&prefix));
    let guard = owner.register(instance(1)).await.unwrap();
    let record = guard.record_id().clone();
    let key = format!("{prefix}/greeter/{}", record.id);
    let before = entry(&prefix, &key).await.unwrap();
    operator
        .set_override(&record, Override::Draining)
        .await
        .unwrap();
    let after = entry(&prefix, &key).await.unwrap();
    assert_eq!(before.mod_revision(), after.mod_revision());
    let beside = format!("{prefix}/greeter//override/{}", record.id);
    let beside = entry(&prefix, &beside).await.unwrap();
    assert_eq!(beside.lease(), before.lease());

    guard.deregister().await.unwrap();
    let mut raw = raw(&server()).await;
    assert_eq!(keys(&mut raw, &prefix).await, [""; 0]);
}

/// Its living owner does not notice by its lease: the record is there, and readers do not see it.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_removal_that_stopped_halfway_is_mended_by_the_owner() {
    let prefix = prefix();
    let owner = registry(&prefix);
    let mut guard = owner.register(instance(1)).ttl(TTL).await.unwrap();
    let set = owner.set_override(guard.record_id(), Override::Draining);
    set.await.unwrap();
    let key = format!("{prefix}/greeter/{}", guard.record_id().id);
    let mut json = serde_json::to_value(&*guard.instance()).unwrap();
    json["withdrawn"] = true.into();
    let keep = PutOptions::new().with_ignore_lease();
    let mut raw = raw(&server()).await;
    raw.put(key, json.to_string(), Some(keep)).await.unwrap();
    assert!(owner.list("greeter").await.unwrap().is_empty());
    event(&mut guard, "lost").await;
    event(&mut guard, "registered").await;
    let listed = owner.list("greeter").await.unwrap();
    assert_eq!(listed.len(), 1);
    // Although the key was there all the time.
    assert_eq!(listed.instances()[0].overridden(), None);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn what_has_no_lease_cannot_be_overridden_for_good() {
    let prefix = prefix();
    let registry = registry(&prefix);
    let instance = instance(1);
    let key = format!("{prefix}/greeter/{}", instance.id());
    let json = serde_json::to_string(&instance).unwrap();
    let mut raw = raw(&server()).await;
    raw.put(key, json, None).await.unwrap();
    let record = instance.record_id();
    let refused = registry.set_override(&record, Override::Draining).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
    registry.remove_record(&record).await.unwrap();
    assert!(registry.list("greeter").await.unwrap().is_empty());
}

/// It counts while the record is there, and would be left behind by it.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn an_override_that_was_written_by_hand_without_a_lease_ends_with_its_record() {
    let prefix = prefix();
    let owner = registry(&prefix);
    let mut guard = owner.register(instance(1)).ttl(TTL).await.unwrap();
    let record = guard.record_id().clone();
    let mut raw = raw(&server()).await;
    let key = format!("{prefix}/greeter/{}", record.id);
    let created = entry(&prefix, &key).await.unwrap().create_revision();
    let beside = format!("{prefix}/greeter//override/{}", record.id);
    let said = format!(
        r#"{{"override":"draining","incarnation":"{}","create_revision":{created}}}"#,
        record.incarnation
    );
    raw.put(beside.as_str(), said.as_str(), None).await.unwrap();
    event(&mut guard, "overridden").await;
    let attached = || async { entry(&prefix, &beside).await.unwrap().lease() != 0 };
    eventually("attached to a lease", LONG, attached).await;
    let left = entry(&prefix, &beside).await.unwrap();
    assert_eq!(left.value(), said.as_bytes());
    let listed = owner.list("greeter").await.unwrap();
    assert_eq!(listed.instances()[0].overridden(), Some(Override::Draining));
    guard.deregister().await.unwrap();
    assert_eq!(keys(&mut raw, &prefix).await, [""; 0]);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn what_another_program_keeps_is_neither_overridden_nor_written_over() {
    let prefix = prefix();
    let registry = registry(&prefix);
    let mut raw = raw(&server()).await;
    // To go-kit, the first is an address under an id of its own.
    for other in [
        "http://10.0.0.9:1",
        r#"{"override":"draining","by":"another program"}"#,
    ] {
        let guard = registry.register(instance(1)).await.unwrap();
        let record = guard.record_id();
        let beside = format!("{prefix}/greeter//override/{}", record.id);
        raw.put(beside.as_str(), other, None).await.unwrap();
        let set = registry.set_override(record, Override::Draining).await;
        let clear = registry.clear_override(record).await;
        for (refused, operation) in [(set, "set override"), (clear, "clear override")] {
            let refused = refused.unwrap_err();
            let report = refused.report().to_string();
            assert_eq!(refused.kind(), ErrorKind::Conflict, "{report}");
            assert!(report.contains(operation), "{report}");
        }
        registry.remove_record(record).await.unwrap();
        let left = entry(&prefix, &beside).await.unwrap();
        assert_eq!(left.value(), other.as_bytes());
    }

    let name = "users/v1";
    let other = sd_etcd::connect(config(&prefix).with_format(Format::GoKit)).unwrap();
    let gokit = sd_core::Instance::new(name, "10.0.0.8:1").unwrap();
    let _gokit = other.register(gokit).await.unwrap();
    for registry in [&registry, &other] {
        let listed = registry.list(name).await.unwrap();
        let record = listed.instances()[0].record_id();
        let drain = registry.set_override(&record, Override::Draining).await;
        let refused = drain.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        let report = refused.report().to_string();
        assert!(report.contains("go-kit"), "{report}");
    }
    let record = registry.list(name).await.unwrap().instances()[0].record_id();
    registry.remove_record(&record).await.unwrap();
    assert!(registry.list(name).await.unwrap().is_empty());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn killed_and_restarted_with_its_data_an_override_stays() {
    faults::killed_and_restarted_with_its_data_an_override_stays(OwnServer::start().await).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn restarted_without_its_data_a_record_is_back_without_its_override() {
    let server = OwnServer::start().await;
    faults::restarted_without_its_data_a_record_is_back_without_its_override(server).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn an_owner_that_is_killed_leaves_no_override_behind() {
    faults::an_owner_that_is_killed_leaves_no_override_behind(OwnServer::start().await).await;
}
