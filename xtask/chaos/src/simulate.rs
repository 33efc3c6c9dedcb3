//! `--simulate`: elections in virtual time, under faults that a seed decides, and every known mistake put in and noticed.

use std::ops::Range;
use std::thread;

use sd_election::simulation::{self, hunt_flaws, run_schedules};
use tokio::time::Instant;

use crate::playing::print;

const SCHEDULES: u64 = 100_000;
/// Schedules within which a mistake has to be noticed.
const HUNTED: u64 = 2000;

/// False if an invariant was broken or a mistake not noticed. Runs schedules from seed `first` on; if only a seed is given, that one
/// alone, and tells everything that happens in it.
pub(crate) fn run(first: Option<u64>, schedules: Option<u64>) -> bool {
    if let (Some(seed), None) = (first, schedules) {
        return replay(seed);
    }
    let first = first.unwrap_or(0);
    run_many(first..first.saturating_add(schedules.unwrap_or(SCHEDULES)))
}

fn replay(seed: u64) -> bool {
    let report = simulation::run(seed);
    print(&report.to_string());
    report.violations().is_empty()
}

fn run_many(seeds: Range<u64>) -> bool {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    eprintln!("simulating seeds {seeds:?} on {threads} threads");
    let begun = Instant::now();
    let summary = run_schedules(seeds.clone(), threads);
    print(&format!(
        "{summary}{:>10.1?}  in real time\n",
        begun.elapsed()
    ));
    let hunted = seeds.start..seeds.start.saturating_add(HUNTED);
    let caught = hunt_flaws(&hunted, threads);
    for mistake in &caught {
        print(&mistake.to_string());
    }
    let all_noticed = caught.iter().all(|mistake| mistake.by.is_some());
    if summary.failures() > 0 {
        eprintln!(
            "an invariant was violated: --simulate --seed SEED prints all that happens in one schedule"
        );
    }
    if !all_noticed {
        eprintln!("the simulation missed a planted mistake, so it proves nothing");
    }
    summary.failures() == 0 && all_noticed
}
