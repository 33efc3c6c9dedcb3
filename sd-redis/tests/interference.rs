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
    let state = key(&prefix, "greeter", "state");
    let sum: String = raw.ask(&["HGET", &state, "sum"]).await;
    for message in [
        "hello".to_owned(),
        format!("end {history} {} {sum} 1 0 {ends}\n", at.value()),
        format!("end elsewhere {next} {sum} 1 0 {ends}\n"),
        format!("end {history} {next} 1 2 0 {ends}\n"),
        format!("end {history} {} {sum} 1 0 {ends}\n", next + 5),
        format!(
            "put {history} {} {sum} 1 1000 forged\nlive 1 1 1 - {{}}",
            next + 7
        ),
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
async fn a_state_lasts_for_as_long_as_records_are_renewed() {
    let prefix = prefix();
    let raw = Operator::at(&server()).await;
    let _guard = registry(&prefix).register(instance(1)).await.unwrap();
    let state = key(&prefix, "greeter", "state");
    raw.ask::<u64>(&["PEXPIRE", &state, "60000"]).await;
    let lasts = async || raw.ask::<u64>(&["PTTL", &state]).await > 60_000;
    eventually("lasting", LONG, lasts).await;
}

/// The one that is next by all that it says is believed, until the server is asked where the service is.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_forged_next_change_is_undone_by_the_next_look() {
    let prefix = prefix();
    let raw = Operator::at(&server()).await;
    let registry = registry(&prefix);
    let guard = registry.register(instance(1)).await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    let state = until(&mut seen, "there", is_live_with(1)).await;
    let at = state.snapshot().revision().clone();
    let sum: String = raw
        .ask(&["HGET", &key(&prefix, "greeter", "state"), "sum"])
        .await;
    let (history, next, id) = (at.domain(), at.value() + 1, &guard.record_id().id);
    let forged = format!("end {history} {next} {sum} 0123456789abcdef 0 {id}\n");
    raw.ask::<u64>(&["PUBLISH", &key(&prefix, "greeter", "changes"), &forged])
        .await;
    let is_undone = |state: &State| {
        let set = state.snapshot();
        set.len() == 1 && set.revision().domain() != at.domain()
    };
    // Its version counts for nothing either: what was told in it has no place in the history.
    until(&mut seen, "undone", is_undone).await;
    let _second = registry.register(instance(2)).await.unwrap();
    until(&mut seen, "both", is_live_with(2)).await;
}

/// Each field of the state, as another program may leave it.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_state_that_another_program_has_written_holds_up_no_reader_and_no_writer() {
    let prefix = prefix();
    let raw = Operator::at(&server()).await;
    let registry = registry(&prefix);
    let _kept = registry.register(instance(1)).await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    let state = key(&prefix, "greeter", "state");
    for (field, garbage) in [
        ("version", "many"),
        ("version", "-7"),
        ("version", "1e300"),
        ("version", "9223372036854775807"),
        ("version", "99999999999999999999999999"),
        ("version", ""),
        ("history", "two words\n"),
        ("history", "\u{1b}"),
        ("history", ""),
        ("sum", "no sum"),
        ("made", "inf"),
        ("made", "nan"),
        ("made", "-1e300"),
        ("made", "soon"),
    ] {
        raw.ask::<u64>(&["HSET", &state, field, garbage]).await;
        let read = registry.list("greeter").await.unwrap();
        assert_eq!(read.len(), 1, "{field} {garbage}");
        let guard = registry.register(instance(2)).await.unwrap();
        until(&mut seen, field, is_live_with(2)).await;
        let set = registry.list("greeter").await.unwrap();
        assert!(set.skipped().is_empty(), "{field} {garbage}");
        guard.deregister().await.unwrap();
        until(&mut seen, field, is_live_with(1)).await;
        let version = raw.version(&prefix, "greeter").await;
        assert!(version > 0, "{field} {garbage}: {version}");
    }
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn ends_that_no_time_to_live_reaches_are_mended_and_fail_no_list() {
    let prefix = prefix();
    let raw = Operator::at(&server()).await;
    let registry = registry(&prefix);
    let guard = registry.register(instance(1)).await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    let ends = key(&prefix, "greeter", "ends");
    let crashed = registry.register(instance(2)).ttl(LONG).await.unwrap();
    let ids = [guard.record_id(), crashed.record_id()].map(|record| record.id.to_string());
    crashed.release().await.unwrap();
    raw.ask::<u64>(&[
        "ZADD",
        &format!("{prefix}:list"),
        "inf",
        "greeter",
        "-inf",
        "other",
    ])
    .await;
    for end in ["inf", "1e300", "-inf", "-1e300"] {
        for id in &ids {
            raw.ask::<u64>(&["ZADD", &ends, end, id]).await;
        }
        let listed = registry.services().await.unwrap();
        let read = registry.list("greeter").await.unwrap();
        let is_beyond = !end.starts_with('-');
        if is_beyond {
            assert_eq!((listed.len(), read.len()), (1, 2), "{end}");
            let most: (u64, u64) = raw.ask(&["TIME"]).await;
            let most = (most.0 + 24 * 3600 + 1) * 1000;
            let beyond: u64 = raw.ask(&["ZCOUNT", &ends, &most.to_string(), "+inf"]).await;
            assert_eq!(beyond, 0, "{end}");
        }
        let is_back = async || {
            let records = raw.records(&prefix, "greeter").await;
            records.iter().any(|record| record.contains(&ids[0]))
        };
        eventually("renewed", BACK_WITHIN, is_back).await;
        until(&mut seen, "followed", |state| {
            let set = state.snapshot();
            set.instances()
                .iter()
                .any(|one| one.id().as_str() == ids[0])
        })
        .await;
    }
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
