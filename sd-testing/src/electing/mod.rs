//! What every [`Elector`](sd_core::Elector), [`Entry`](sd_core::port::Entry) and [`LeaderWatcher`](sd_core::port::LeaderWatcher) must do.

mod confirming;
mod joining;
mod leaving;
mod observing;
mod recording;
mod stage;
mod succeeding;

use super::case::{Case, SuiteReport};
use crate::Fixture;

/// All cases, in the order in which they run.
pub fn cases() -> Vec<Case> {
    [
        joining::CASES,
        succeeding::CASES,
        leaving::CASES,
        confirming::CASES,
        observing::CASES,
        recording::CASES,
    ]
    .concat()
}

/// Runs all cases one after the other.
pub async fn run_all(fixture: &dyn Fixture) -> SuiteReport {
    SuiteReport::of(cases(), fixture).await
}
