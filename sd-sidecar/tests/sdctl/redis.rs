//! Against a real Redis or Valkey: what one `sdctl` registers, another sees, and two of them want to lead, as well as Redis can tell.

use std::time::Duration;

use rustix::process::Signal;
use sd_core::Incarnation;
use sd_core::clock::{BootClock, Clock};
use sd_testing::required_env;
use serde_json::json;

use crate::beating::Beating;
use crate::electing::{ELECTION, is, time};
use crate::operating::an_instance_is_drained_marked_cleared_and_removed;
use crate::registering::is_seen_until_it_is_told_to_stop;
use crate::running::{Running, failure, sdctl, sdctl_json};

const TTL: &str = "5s";
/// The time-to-live, and slack for a busy machine.
const REPLACED_WITHIN: Duration = Duration::from_secs(5 + 5);

/// A corner of the shared server for one test.
fn registry() -> String {
    let server = required_env("SD_TEST_REDIS").unwrap();
    let corner = Incarnation::random();
    format!("{server}?prefix=sdctl-{corner}&election_prefix=sdctl-elections-{corner}")
}

fn elect(registry: &str, value: &str, beating: &Beating) -> Running {
    let elect = [
        "elect",
        ELECTION,
        "--best-effort",
        "--value",
        value,
        "--ttl",
        TTL,
        "--json",
        "--",
    ];
    Running::start(registry, &beating.after(&elect))
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_registration_is_seen_by_others_until_it_is_told_to_stop() {
    let [.., services] = is_seen_until_it_is_told_to_stop(&registry(), "greeter").await;
    assert_eq!(services, json!({"services": ["greeter"], "unlisted": 0}));
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn an_operator_drains_marks_clears_and_removes_an_instance() {
    an_instance_is_drained_marked_cleared_and_removed(&registry(), "greeter", true).await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn elections_are_run_only_by_one_who_says_that_best_effort_is_acceptable() {
    let registry = registry();
    let refused = failure(&sdctl(&registry, &["elect", ELECTION, "--", "true"]).await);
    assert!(refused.contains("--best-effort"), "{refused}");

    let [first_beating, second_beating] = [Beating::stubborn(), Beating::docile()];
    let mut first = elect(&registry, "first", &first_beating);
    let first_elected = first.json_where(is("elected")).await;
    let mut second = elect(&registry, "second", &second_beating);
    second.json_where(is("waiting")).await;
    let run = first_beating.run(1).await;
    let leader = sdctl_json(&registry, &["leader", ELECTION, "--json"]).await;
    assert_eq!(leader["leader"]["value"], "first", "{leader}");

    let now = BootClock.now();
    first.signal(Signal::KILL);
    let elected = second.json_where(is("elected")).await;
    let took = time(&elected).since(now);
    assert!(took < REPLACED_WITHIN, "{took:?}");
    assert!(elected["token"].as_u64() > first_elected["token"].as_u64());
    run.is_over().await;

    // And one that is asked to stop is replaced at once.
    let third_beating = Beating::docile();
    let mut third = elect(&registry, "third", &third_beating);
    third.json_where(is("waiting")).await;
    second_beating.run(1).await;
    second.signal(Signal::TERM);
    let (status, lines, _) = second.end().await;
    assert!(status.success(), "{lines:?}");
    let elected = third.json_where(is("elected")).await;
    assert!(second_beating.last_sign() < time(&elected));
}
