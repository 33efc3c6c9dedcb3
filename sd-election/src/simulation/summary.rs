//! Many schedules, on several threads. Each schedule runs on one, so threads change nothing of what it does.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::run::{Report, run, run_flawed};
use crate::flaw::Flaw;

/// Failed seeds that are named; the others are counted.
const FAILED_KEPT: usize = 20;

/// The result of many schedules.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    schedules: u64,
    terms: u64,
    gap: Option<Duration>,
    counts: BTreeMap<&'static str, u64>,
    failed: Vec<(u64, String)>,
    failures: u64,
}

impl Summary {
    fn add(&mut self, report: &Report) {
        self.schedules += 1;
        let facts = report.facts();
        self.terms += facts.terms;
        self.gap = shorter(self.gap, facts.gap);
        for (name, count) in &facts.counts {
            *self.counts.entry(name).or_default() += count;
        }
        if let Some(first) = report.violations().first() {
            self.failures += 1;
            self.failed.push((report.seed(), first.to_string()));
            self.keep_lowest();
        }
    }

    fn merge(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.terms += other.terms;
        self.gap = shorter(self.gap, other.gap);
        for (name, count) in other.counts {
            *self.counts.entry(name).or_default() += count;
        }
        self.failures += other.failures;
        self.failed.extend(other.failed);
        self.keep_lowest();
    }

    fn keep_lowest(&mut self) {
        self.failed.sort_unstable();
        self.failed.truncate(FAILED_KEPT);
    }

    /// How many schedules broke an invariant.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// The lowest seeds whose schedules did, each with its first violation.
    pub fn failed(&self) -> &[(u64, String)] {
        &self.failed
    }

    /// How many schedules ran.
    pub fn schedules(&self) -> u64 {
        self.schedules
    }

    /// How many terms began.
    pub fn terms(&self) -> u64 {
        self.terms
    }

    /// The shortest time between two nodes' beliefs, where they must not overlap.
    pub fn shortest_gap(&self) -> Option<Duration> {
        self.gap
    }

    /// How often each kind of fault happened, and how many schedules of each class there were.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }
}

fn shorter(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>10}  schedules", self.schedules)?;
        writeln!(f, "{:>10}  terms", self.terms)?;
        for (name, count) in &self.counts {
            writeln!(f, "{count:>10}  {name}")?;
        }
        if let Some(gap) = self.gap {
            writeln!(f, "{gap:>10.1?}  shortest time between two beliefs")?;
        }
        writeln!(
            f,
            "{:>10}  schedules that broke an invariant",
            self.failures
        )?;
        for (seed, violation) in &self.failed {
            writeln!(f, "seed {seed}: {violation}")?;
        }
        Ok(())
    }
}

/// Runs the schedules of these seeds on `threads` threads.
pub fn run_schedules(seeds: Range<u64>, threads: usize) -> Summary {
    let next = AtomicU64::new(seeds.start);
    let mut whole = Summary::default();
    thread::scope(|scope| {
        let work = || {
            let mut part = Summary::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return part;
                }
                part.add(&run(seed));
            }
        };
        let parts: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        for part in parts {
            // A panic in a schedule is caught there.
            if let Ok(part) = part.join() {
                whole.merge(part);
            }
        }
    });
    whole
}

/// Whether a mistake was noticed.
#[derive(Clone, Debug)]
pub struct Caught {
    /// The mistake.
    pub flaw: Flaw,
    /// How many schedules it took and which invariant was broken; `None` if it was not noticed.
    pub by: Option<(u64, &'static str)>,
}

impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{:?}", self.flaw);
        match self.by {
            Some((schedules, invariant)) => {
                write!(
                    f,
                    "{name:<28} noticed by {invariant} after {schedules:>5} schedules"
                )
            }
            None => write!(f, "{name:<28} NOT NOTICED: {}", self.flaw.description()),
        }
    }
}

/// Puts in each mistake in turn and runs the schedules of these seeds until one notices it.
pub fn hunt_flaws(seeds: &Range<u64>, threads: usize) -> Vec<Caught> {
    let next = AtomicUsize::new(0);
    let mut all = Vec::new();
    thread::scope(|scope| {
        let work = || {
            let mut part = Vec::new();
            while let Some(flaw) = Flaw::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                part.push(hunt(*flaw, seeds.clone()));
            }
            part
        };
        let parts: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        for part in parts {
            // A panic in a schedule is caught there.
            all.extend(part.join().unwrap_or_default());
        }
    });
    all.sort_unstable_by_key(|caught| caught.flaw);
    all
}

fn hunt(flaw: Flaw, seeds: Range<u64>) -> Caught {
    let by = seeds.zip(1..).find_map(|(seed, schedules)| {
        let report = run_flawed(seed, flaw);
        let violation = report.violations().first()?;
        Some((schedules, violation.invariant()))
    });
    Caught { flaw, by }
}
