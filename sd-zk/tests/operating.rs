//! What becomes of an override when the server has trouble.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::faults::OwnServer;
use sd_testing::faults;

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn killed_and_restarted_with_its_data_an_override_stays() {
    let server = OwnServer::with_long_sessions().await;
    faults::killed_and_restarted_with_its_data_an_override_stays(server).await;
}

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn restarted_without_its_data_a_record_is_back_without_its_override() {
    faults::restarted_without_its_data_a_record_is_back_without_its_override(
        OwnServer::start().await,
    )
    .await;
}
