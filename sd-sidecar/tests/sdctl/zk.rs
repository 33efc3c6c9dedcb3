//! Against a real ZooKeeper: what one `sdctl` registers, another sees, and two of them want to lead.

use std::time::Duration;

use rustix::process::Signal;
use sd_core::Incarnation;
use sd_core::clock::{BootClock, Clock};
use sd_testing::required_env;
use serde_json::json;

use crate::beating::Beating;
use crate::electing::{ELECTION, elect, is, time};
use crate::operating::an_instance_is_drained_marked_cleared_and_removed;
use crate::registering::is_seen_until_it_is_told_to_stop;
use crate::running::sdctl_json;

/// The client crate gives a connection up after two fifths of it, which a server on a busy machine may take to answer.
const TTL: Duration = Duration::from_secs(5);
/// What a server may take beyond the time-to-live, on a busy machine.
const SLACK: Duration = Duration::from_secs(5);

/// A corner of the shared server for one test.
fn registry() -> String {
    let server = required_env("SD_TEST_ZK").unwrap();
    let corner = Incarnation::random();
    let seconds = TTL.as_secs();
    format!(
        "zk://{server}?prefix=/sdctl-{corner}&election_prefix=/sdctl-elections-{corner}&session_timeout={seconds}s"
    )
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_registration_is_seen_by_others_until_it_is_told_to_stop() {
    let [_, _, services] = is_seen_until_it_is_told_to_stop(&registry(), "greeter").await;
    assert_eq!(services, json!({"services": ["greeter"], "unlisted": 0}));
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn an_operator_drains_marks_clears_and_removes_an_instance() {
    an_instance_is_drained_marked_cleared_and_removed(&registry(), "greeter", true).await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn the_command_of_a_leader_that_is_killed_is_dead_before_the_next_one_leads() {
    let registry = registry();
    let [first_beating, second_beating] = [Beating::stubborn(), Beating::docile()];
    let mut first = elect(&registry, "first", TTL, &first_beating);
    let first_elected = first.json_where(is("elected")).await;
    let mut second = elect(&registry, "second", TTL, &second_beating);
    second.json_where(is("waiting")).await;
    let run = first_beating.run(1).await;
    let leader = sdctl_json(&registry, &["leader", ELECTION, "--json"]).await;
    assert_eq!(leader["leader"]["value"], "first", "{leader}");

    let now = BootClock.now();
    first.signal(Signal::KILL);
    let elected = second.json_where(is("elected")).await;
    let took = time(&elected).since(now);
    assert!(took < TTL + SLACK, "{took:?}");
    assert!(elected["token"].as_u64() > first_elected["token"].as_u64());
    assert!(first_beating.last_sign() < time(&elected), "{elected}");
    run.is_over().await;

    // And one that is asked to stop is replaced at once.
    let third_beating = Beating::docile();
    let mut third = elect(&registry, "third", TTL, &third_beating);
    third.json_where(is("waiting")).await;
    second_beating.run(1).await;
    second.signal(Signal::TERM);
    let (status, lines, _) = second.end().await;
    assert!(status.success(), "{lines:?}");
    let elected = third.json_where(is("elected")).await;
    assert!(second_beating.last_sign() < time(&elected));
}
