//! What it costs to ask whether one leads.

use std::hint::black_box;
use std::time::Duration;

use sd_core::clock::{BootClock, Clock};
use sd_core::memory::Memory;
use sd_election::{Candidate, Leadership};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::Part;
use crate::harness::interleave;
use crate::plot::short;
use crate::report::Table;
use crate::stats::Spread;
use crate::{Effort, Result};

const BATCH: u32 = 1_000;

pub(super) fn measure(effort: Effort, runtime: &Runtime) -> Result<Part> {
    let time = effort.pick(Duration::from_millis(100), Duration::from_millis(5));
    let registry = Memory::new().connect();
    let candidate = Candidate::builder(&registry, "belief").build()?;
    let leadership = runtime.block_on(candidate.campaign())?;
    let mut contenders = [Contender::IsLeader(leadership), Contender::Clock(BootClock)];
    let figures = interleave(&mut contenders, effort.rounds, |contender| {
        Ok(contender.nanos(time))
    })?;
    let mut table = Table::new(["what", "p50 ns", "quartiles ns"]);
    for (name, nanos) in ["`is_leader()`", "the clock that it reads"]
        .into_iter()
        .zip(&figures)
    {
        let spread = Spread::of(nanos.iter().copied());
        table.row([
            name.to_owned(),
            short(spread.median),
            format!("{}–{}", short(spread.quarter), short(spread.three_quarters)),
        ]);
    }
    Ok(Part {
        text: format!("{METHOD}\n{table}"),
        bars: Vec::new(),
    })
}

enum Contender {
    IsLeader(Leadership),
    Clock(BootClock),
}

impl Contender {
    fn nanos(&self, time: Duration) -> f64 {
        match self {
            Self::IsLeader(leadership) => nanos_per_call(time, || leadership.is_leader()),
            Self::Clock(clock) => nanos_per_call(time, || clock.now()),
        }
    }
}

fn nanos_per_call<T>(time: Duration, call: impl Fn() -> T) -> f64 {
    let (started, mut calls) = (Instant::now(), 0_u32);
    while started.elapsed() < time {
        for _ in 0..BATCH {
            black_box(call());
        }
        calls += BATCH;
    }
    started.elapsed().as_secs_f64() * 1e9 / f64::from(calls.max(1))
}

const METHOD: &str = "\
**Asking.** Each `is_leader()` reads the boot-time clock and compares it with the deadline; it relies on no timer or flag.
On one thread:
";
