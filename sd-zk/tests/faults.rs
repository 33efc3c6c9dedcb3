//! What happens when the server dies, freezes, forgets or is cut off, through the whole stack and over a real ZooKeeper.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::faults::OwnServer;
use sd_testing::faults;

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn killed_and_restarted_with_its_data_nothing_flaps() {
    let server = OwnServer::with_long_sessions().await;
    faults::killed_and_restarted_with_its_data_nothing_flaps(server).await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn restarted_without_its_data_everything_is_there_again() {
    faults::restarted_without_its_data_everything_is_there_again(OwnServer::start().await).await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn frozen_for_longer_than_the_session_the_registration_is_back_soon() {
    faults::frozen_for_longer_than_the_ttl_the_registration_is_back_soon(OwnServer::start().await)
        .await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn cut_off_for_less_than_the_session_nothing_flaps() {
    let server = OwnServer::with_long_sessions().await;
    faults::cut_off_for_less_than_the_ttl_nothing_flaps(server).await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn in_a_black_hole_for_longer_than_the_session_the_registration_is_back_soon() {
    faults::in_a_black_hole_for_longer_than_the_ttl_the_registration_is_back_soon(
        OwnServer::start().await,
    )
    .await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_server_whose_answers_are_held_back_is_found_out() {
    faults::a_server_whose_answers_are_held_back_is_found_out(OwnServer::start().await).await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_registry_that_is_down_at_the_start_delays_nobody() {
    faults::a_registry_that_is_down_at_the_start_delays_nobody(OwnServer::start().await).await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn dropping_everything_leaves_no_node_no_session_and_no_socket() {
    faults::dropping_everything_leaves_nothing(OwnServer::start().await).await;
}
