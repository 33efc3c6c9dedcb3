//! Keys and values beside the records, over a running Consul.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{registry_at, server};
use sd_consul::{KeyChange, KeyValue, change_keys, list_keys};
use sd_core::Incarnation;

fn put(key: &str, value: &str, modified: u64) -> KeyChange {
    KeyChange::Put {
        key: key.to_owned(),
        value: value.into(),
        modified,
    }
}

fn delete(found: &KeyValue) -> KeyChange {
    KeyChange::Delete {
        key: found.key.clone(),
        modified: found.modified,
    }
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn all_changes_are_made_or_none_and_none_that_is_based_on_an_older_value() {
    let registry = registry_at(&server());
    let folder = format!("tests/{}/größe %2F/", Incarnation::random());
    let (one, other) = (format!("{folder}one"), format!("{folder}other"));
    assert_eq!(list_keys(&registry, &folder).await.unwrap(), []);
    let both = [put(&one, "1", 0), put(&other, "", 0)];
    assert!(change_keys(&registry, &both).await.unwrap());
    // They are there by now.
    assert!(!change_keys(&registry, &both).await.unwrap());
    let found = list_keys(&registry, &folder).await.unwrap();
    let shown: Vec<_> = found
        .iter()
        .map(|found| (&*found.key, &*found.value))
        .collect();
    assert_eq!(shown, [(&*one, &b"1"[..]), (&*other, &b""[..])]);

    let newer = put(&one, "2", found[0].modified);
    assert!(change_keys(&registry, &[newer]).await.unwrap());
    // One of them is another than was found.
    let all: Vec<_> = found.iter().map(delete).collect();
    assert!(!change_keys(&registry, &all).await.unwrap());
    let found = list_keys(&registry, &folder).await.unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].value, b"2");
    let all: Vec<_> = found.iter().map(delete).collect();
    assert!(change_keys(&registry, &all).await.unwrap());
    assert_eq!(list_keys(&registry, &folder).await.unwrap(), []);
    registry.close().await.unwrap();
}
