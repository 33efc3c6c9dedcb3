//! Elections in virtual time, under faults that a seed decides. `cargo xtask chaos --simulate` runs many more of them.

use std::env;

use sd_election::simulation::{Flaw, hunt_flaws, run, run_flawed, run_schedules};

/// Schedules that run here.
const SCHEDULES: u64 = 250;
/// Schedules within which every mistake must be noticed.
const HUNTED: u64 = 1000;
const THREADS: usize = 2;

/// `SD_SIMULATE_SEED` replays one schedule and prints what happens in it.
#[test]
fn no_schedule_breaks_an_invariant() {
    if let Ok(seed) = env::var("SD_SIMULATE_SEED") {
        let report = run(seed.parse().expect("SD_SIMULATE_SEED is a number"));
        println!("{report}");
        assert!(report.violations().is_empty());
        return;
    }
    let summary = run_schedules(0..SCHEDULES, THREADS);
    println!("{summary}");
    assert_eq!(
        summary.failures(),
        0,
        "replay one with SD_SIMULATE_SEED=<seed> cargo test -p sd-election --test simulation -- --nocapture no_schedule"
    );
}

#[test]
fn the_same_seed_does_the_same_again() {
    for seed in 0..10 {
        let [first, second] = [run(seed), run(seed)];
        assert!(first.history().count() > 50, "something happens");
        assert!(first.history().eq(second.history()), "seed {seed}");
    }
}

#[test]
fn every_mistake_is_noticed() {
    let caught = hunt_flaws(&(0..HUNTED), THREADS);
    for caught in &caught {
        println!("{caught}");
    }
    assert!(caught.iter().all(|caught| caught.by.is_some()));
}

// Seeds that once failed.

#[test]
fn who_leaves_within_the_takeover_delay_does_not_speak_for_the_leader_before() {
    let seed = 216;
    assert_eq!(run(seed).violations().len(), 0);
    let flawed = run_flawed(seed, Flaw::GraceTakenForTerm);
    assert_eq!(flawed.violations()[0].invariant(), "I1");
}

#[test]
fn the_time_to_stop_begins_when_the_work_is_told_that_the_registry_closes() {
    for seed in [898, 10_794] {
        assert_eq!(run(seed).violations().len(), 0);
    }
}
