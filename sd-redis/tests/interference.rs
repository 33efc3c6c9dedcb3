//! What operators and other programs do to our keys and channels, over a running server.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{
    BACK_WITHIN, LONG, Operator, eventually, instance, is_live_with, key, prefix, registry, server,
    told, until,
};
use sd_core::{ErrorKind, State};
use tokio::time::Instant;

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_service_whose_keys_an_operator_deletes_is_written_and_read_again() {
    let prefix = prefix();
    let raw = Operator::at(&server()).await;
    let registry = registry(&prefix);
    let mut guard = registry.register(instance(1)).await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    for parts in [
        &["records", "ends", "state"][..],
        &["records"],
        &["ends"],
        &["state"],
    ] {
        told(&mut guard);
        let since = Instant::now();
        for part in parts {
            let deleted: u64 = raw.ask(&["DEL", &key(&prefix, "greeter", part)]).await;
            assert_eq!(deleted, 1, "{part}");
        }
        // A record alone is given its end again by the first reader that asks, and was then never lost.
        let is_whole = || async { raw.records(&prefix, "greeter").await.len() == 1 };
        eventually("there again", BACK_WITHIN, is_whole).await;
        assert!(since.elapsed() < BACK_WITHIN, "{:?}", since.elapsed());
        until(&mut seen, "read again", is_live_with(1)).await;
    }
    assert_eq!(registry.services().await.unwrap().len(), 1);
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn an_unreadable_entry_is_skipped_named_and_mended_while_the_others_stay() {
    let prefix = prefix();
    let raw = Operator::at(&server()).await;
    let registry = registry(&prefix);
    let _guard = registry.register(instance(1)).await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    let records = key(&prefix, "greeter", "records");
    let broken = instance(2);
    let id = broken.id().as_str();
    raw.ask::<u64>(&["HSET", &records, id, "not a record"])
        .await;
    let is_named = |state: &State| {
        let skipped = state.snapshot().skipped();
        skipped
            .iter()
            .any(|skipped| skipped.key == format!("{records} {id}"))
    };
    let state = until(&mut seen, "named", is_named).await;
    assert_eq!(state.snapshot().len(), 1);
    let refused = registry.register(broken.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    let report = refused.report().to_string();
    assert!(
        report.contains("something that is not a record"),
        "{report}"
    );

    raw.ask::<u64>(&["HDEL", &records, id]).await;
    let _mended = registry.register(broken).await.unwrap();
    let state = until(&mut seen, "mended", is_live_with(2)).await;
    assert!(state.snapshot().skipped().is_empty());
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_key_of_another_type_is_named_and_what_it_hides_is_back_when_it_is_gone() {
    let prefix = prefix();
    let raw = Operator::at(&server()).await;
    let registry = registry(&prefix);
    let _guard = registry.register(instance(1)).await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    for part in ["records", "ends", "state"] {
        let wrong = key(&prefix, "greeter", part);
        raw.ask::<()>(&["SET", &wrong, "of another program"]).await;
        let is_named = |state: &State| {
            let skipped = state.snapshot().skipped();
            skipped
                .iter()
                .any(|skipped| skipped.key == wrong && skipped.reason.contains("string"))
        };
        until(&mut seen, "named", is_named).await;
        let refused = registry.register(instance(2)).await.unwrap_err();
        let report = refused.report().to_string();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{report}");
        assert!(report.contains("WRONGTYPE"), "{report}");
        let list = registry.list_services().await.unwrap();
        // Without its state it still has an instance.
        let is_listed = part == "state";
        assert_eq!(list.services.len(), usize::from(is_listed));
        assert_eq!(list.unlisted, usize::from(!is_listed));
        raw.ask::<u64>(&["DEL", &wrong]).await;
        until(&mut seen, "back", is_live_with(1)).await;
    }
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn what_another_program_publishes_on_our_channels_changes_nothing() {
    let prefix = prefix();
    let raw = Operator::at(&server()).await;
    let registry = registry(&prefix);
    let guard = registry.register(instance(1)).await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    let state = until(&mut seen, "there", is_live_with(1)).await;
    let at = state.snapshot().revision().clone();
    let (history, next) = (at.domain().to_owned(), at.value() + 1);
    let channel = key(&prefix, "greeter", "changes");
    let ends = guard.record_id().id.clone();
    for message in [
        "hello".to_owned(),
        format!("end {history} {} 0 {ends}\n", at.value()),
        format!("end elsewhere {next} 0 {ends}\n"),
        format!("end {history} {} 0 {ends}\n", next + 5),
        format!("put {history} {} 1000 forged\nlive 1 1 - {{}}", next + 7),
    ] {
        raw.ask::<u64>(&["PUBLISH", &channel, &message]).await;
    }
    raw.ask::<u64>(&["PUBLISH", &format!("{prefix}:list:changes"), "\u{1b}"])
        .await;
    // The next change is told after all of these.
    let second = registry.register(instance(2)).await.unwrap();
    until(&mut seen, "both", is_live_with(2)).await;
    second.deregister().await.unwrap();
    let is_clean = |state: &State| {
        let set = state.snapshot();
        set.len() == 1 && set.skipped().is_empty()
    };
    until(&mut seen, "as it was", is_clean).await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn the_list_of_services_heals_and_shows_only_what_has_an_instance() {
    let prefix = prefix();
    let raw = Operator::at(&server()).await;
    let registry = registry(&prefix);
    let list = format!("{prefix}:list");
    raw.ask::<u64>(&["ZADD", &list, "9e15", "empty", "9e15", "a\u{1b}"])
        .await;
    let guard = registry.register(instance(1)).await.unwrap();
    let read = registry.list_services().await.unwrap();
    assert_eq!((read.services.len(), read.unlisted), (1, 1));
    assert_eq!(read.services[0].as_str(), "greeter");
    raw.ask::<u64>(&["DEL", &list]).await;
    raw.ask::<()>(&["SET", &list, "of another program"]).await;
    let error = registry.list_services().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    raw.ask::<u64>(&["DEL", &list]).await;
    guard.deregister().await.unwrap();
    let _again = registry.register(instance(1)).await.unwrap();
    let is_listed = || async { registry.services().await.unwrap().len() == 1 };
    eventually("listed", LONG, is_listed).await;
}
