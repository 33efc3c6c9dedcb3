//! Counts allocations, for `bench`, which starts it: a program of its own, so that counting costs the measured times nothing.

use std::alloc::System;
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    bench::count_allocations(|| {
        let stats = COUNTING.stats();
        stats.allocations + stats.reallocations
    })
}
