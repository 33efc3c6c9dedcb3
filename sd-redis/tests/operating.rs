//! What operators say of records and where it is kept, over a running server.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::faults::OwnServer;
use common::{Operator, instance, prefix, registry, server};
use sd_core::Override;
use sd_testing::faults;

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn an_override_is_kept_with_its_record_and_goes_with_it() {
    let prefix = prefix();
    let raw = Operator::at(&server()).await;
    let (owner, operator) = (registry(&prefix), registry(&prefix));
    let guard = owner.register(instance(1)).await.unwrap();
    let record = guard.record_id().clone();
    let said = async || {
        let stored = raw.records(&prefix, "greeter").await;
        stored[0].split(' ').nth(4).unwrap().to_owned()
    };
    assert_eq!(said().await, "-");
    for (wanted, word) in [
        (Some(Override::Draining), "draining"),
        (Some(Override::Ready), "ready"),
        (None, "-"),
        (Some(Override::Unready), "unready"),
    ] {
        match wanted {
            Some(wanted) => operator.set_override(&record, wanted).await.unwrap(),
            None => operator.clear_override(&record).await.unwrap(),
        }
        assert_eq!(said().await, word);
    }
    let version = raw.version(&prefix, "greeter").await;
    operator
        .set_override(&record, Override::Unready)
        .await
        .unwrap();
    assert_eq!(raw.version(&prefix, "greeter").await, version);

    guard.deregister().await.unwrap();
    let again = owner.register(instance(1)).await.unwrap();
    assert_eq!(said().await, "-");
    drop(again);
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn killed_and_restarted_with_its_data_an_override_stays() {
    faults::killed_and_restarted_with_its_data_an_override_stays(OwnServer::start().await).await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn restarted_without_its_data_a_record_is_back_without_its_override() {
    faults::restarted_without_its_data_a_record_is_back_without_its_override(
        OwnServer::start().await,
    )
    .await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn an_owner_that_is_killed_leaves_no_override_behind() {
    faults::an_owner_that_is_killed_leaves_no_override_behind(OwnServer::start().await).await;
}
