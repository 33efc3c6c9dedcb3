//! Elections in virtual time, under faults that a seed decides. `cargo xtask chaos --simulate` runs many more of them.

use std::env;

use sd_election::simulation::{Flaw, hunt_flaws, run, run_flawed, run_schedules};

/// Schedules that run here.
const SCHEDULES: u64 = 250;
/// Schedules within which every mistake must be noticed.
const HUNTED: u64 = 1000;
const THREADS: usize = 2;
/// What must have gone wrong somewhere, or nothing is proven.
const KINDS: &[&str] = &[
    "campaigns dropped",
    "entries removed",
    "joins that came again",
    "leases ended",
    "leases restarted",
    "leases that ended early",
    "nodes cut off",
    "nodes killed",
    "nodes stopped",
    "server down",
    "server frozen",
    "stops at a reading of a clock",
    "storms",
];

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
    for kind in KINDS {
        assert!(summary.counts().contains_key(kind), "{kind} never happens");
    }
    assert!(summary.terms() > SCHEDULES * 5, "{}", summary.terms());
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

// Seeds that show what was once wrong.

#[test]
fn who_leaves_within_the_takeover_delay_does_not_speak_for_the_leader_before() {
    breaks_i1_only_with(Flaw::GraceTakenForTerm, 379);
}

#[test]
fn a_shorter_takeover_delay_than_the_predecessor_may_believe_is_not_enough() {
    breaks_i1_only_with(Flaw::PredecessorTtlIgnored, 85);
}

#[test]
fn the_time_to_stop_begins_when_the_work_is_told_that_the_registry_closes() {
    breaks_i1_only_with(Flaw::ClosedAtOnce, 116);
}

fn breaks_i1_only_with(flaw: Flaw, seed: u64) {
    assert_eq!(run(seed).violations().len(), 0);
    assert_eq!(run_flawed(seed, flaw).violations()[0].invariant(), "I1");
}
