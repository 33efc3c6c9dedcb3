//! How a term is kept and when it is given up.

mod validation;

use std::time::Duration;

/// The time-to-live that a candidate asks for by default.
pub const DEFAULT_TTL: Duration = Duration::from_secs(10);
/// How much the rates of two clocks may differ by default.
pub const DEFAULT_CLOCK_ERROR: f64 = 0.01;

/// What a leader does when a renewal fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StepDown {
    /// Goes on until the deadline, and tries to renew all the while.
    #[default]
    AtDeadline,
    /// Ends the term with the first renewal that fails.
    OnFirstError,
}

/// How a term is kept and when it is given up.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TermConfig {
    /// By what share our clock may run slower than the server's; with a takeover delay, also how much two candidates' clocks may differ.
    /// Clocks need not agree on the time. Default 0.01; from 0, and as much as leaves room to renew.
    pub clock_error: f64,
    /// How long the application needs to stop once it is told. Belief ends this long before the server may hand the term over.
    /// Default a tenth of the time-to-live; at most a quarter of it.
    pub stop_margin: Option<Duration>,
    /// How long to wait before believing in a term whose predecessor did not resign: this long, or for the time-to-live that the
    /// predecessor was granted if that is longer. Then two beliefs do not overlap even if an operator or the server ended the
    /// predecessor's lease early. All candidates of an election should have it or none. Default 0: do not wait.
    pub takeover_delay: Duration,
    /// What to do when a renewal fails. Default: go on until the deadline.
    pub step_down: StepDown,
    /// If set, the leader must call [`Term::alive`](crate::Term::alive) at least this often, or its term is renewed no longer.
    /// Default none.
    pub progress_within: Option<Duration>,
}

impl Default for TermConfig {
    fn default() -> Self {
        Self {
            clock_error: DEFAULT_CLOCK_ERROR,
            stop_margin: None,
            takeover_delay: Duration::ZERO,
            step_down: StepDown::default(),
            progress_within: None,
        }
    }
}
