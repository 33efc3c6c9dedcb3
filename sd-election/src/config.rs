//! How a term is kept and when it is given up.

mod validation;

use std::time::Duration;

use serde::Deserialize;

/// The time-to-live that a candidate asks for by default.
pub const DEFAULT_TTL: Duration = Duration::from_secs(10);
/// How much the rates of two clocks may differ by default.
pub const DEFAULT_CLOCK_ERROR: f64 = 0.01;

/// What a leader does when a renewal fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepDown {
    /// Leads until the deadline, and keeps retrying the renewal.
    #[default]
    AtDeadline,
    /// Ends the term at the first renewal that fails.
    OnFirstError,
}

/// How a term is kept and when it is given up.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TermConfig {
    /// By what share our clock may run slower than the server's clock. With a takeover delay, also by how much two candidates' clocks
    /// may differ in rate. Clocks need not show the same time. Default 0.01. At least 0, and small enough to leave room to renew.
    pub clock_error: f64,
    /// How long the application needs to stop once it is told to. Belief ends this long before the server may hand the term over.
    /// Default: a tenth of the time-to-live. At most a quarter of it.
    #[serde(with = "humantime_serde")]
    pub stop_margin: Option<Duration>,
    /// How long to wait before believing in a term whose predecessor did not resign. If the predecessor was granted a longer
    /// time-to-live, the wait lasts for that one. With this delay, two beliefs do not overlap even if an operator or the server ended
    /// the predecessor's lease early. Set it for all candidates of an election or for none. Default 0: do not wait.
    #[serde(with = "humantime_serde")]
    pub takeover_delay: Duration,
    /// What to do when a renewal fails. Default: keep leading until the deadline.
    pub step_down: StepDown,
    /// If set, the leader must call [`Term::alive`](crate::Term::alive) at least this often; otherwise its term is no longer renewed.
    /// Default: not set.
    #[serde(with = "humantime_serde")]
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
