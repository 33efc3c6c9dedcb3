//! What every [`Registrar`](sd_core::Registrar) and [`Registration`](sd_core::port::Registration) must do.

mod lacking;
mod permanent;
mod registering;
mod renewing;
mod restarting;
mod sessions;
mod updating;
mod withdrawing;

use super::case::{Case, SuiteReport};
use crate::Fixture;

/// All cases, in the order in which they run.
pub fn cases() -> Vec<Case> {
    [
        registering::CASES,
        withdrawing::CASES,
        updating::CASES,
        renewing::CASES,
        restarting::CASES,
        sessions::CASES,
        permanent::CASES,
        lacking::CASES,
    ]
    .concat()
}

/// Runs all cases one after the other.
pub async fn run_all(fixture: &dyn Fixture) -> SuiteReport {
    SuiteReport::of(cases(), fixture).await
}
