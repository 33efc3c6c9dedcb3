//! What every [`Instancer`](sd_core::Instancer) and [`Watcher`](sd_core::Watcher) must do.
//!
//! The cases write with a separate client, so the backend must also be able to write.

mod lacking;
mod listing;
mod resuming;
mod runs;
mod services;
mod watching;

use super::case::{Case, SuiteReport};
use crate::Fixture;

/// All cases, in the order in which they run.
pub fn cases() -> Vec<Case> {
    [
        listing::CASES,
        watching::CASES,
        resuming::CASES,
        runs::CASES,
        services::CASES,
        lacking::CASES,
    ]
    .concat()
}

/// Runs all cases one after the other.
pub async fn run_all(fixture: &dyn Fixture) -> SuiteReport {
    SuiteReport::of(cases(), fixture).await
}
