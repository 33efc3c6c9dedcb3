//! What one seed decides before anything happens: the election, its clocks, its network, and what may go wrong.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use sd_core::clock::Moment;

use super::clock::Pace;
use super::executor::{Stalls, draw_between};
use super::network::Profile;
use crate::config::{StepDown, TermConfig};

/// What may happen in a schedule, and so what is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Clocks run alike within the clock error, and no lease of a leader ends earlier than was declared.
    Promised,
    /// Operators delete entries and end leases; all candidates have a takeover delay.
    Delayed,
    /// The same without a takeover delay, and with clocks whose rates are far off. Beliefs may overlap; tokens still fence.
    Unguarded,
}

impl Class {
    /// Whether two beliefs must not overlap.
    pub(super) fn separates_beliefs(self) -> bool {
        self != Self::Unguarded
    }

    pub(super) fn has_operators(self) -> bool {
        self != Self::Promised
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Promised => "promised",
            Self::Delayed => "delayed",
            Self::Unguarded => "unguarded",
        }
    }
}

/// A server whose answer to a confirmation does not prove that it was timed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lag {
    /// How often what was confirmed is reported to where sessions are timed.
    pub(super) reports_every: Duration,
    /// How long before it joins the session of an entry was timed last.
    pub(super) session_age: Duration,
}

impl Lag {
    /// In the shortest times-to-live. A quarter of one holds a report, also if the clock that measures it is a fifth too fast.
    const REPORTS_EVERY: f64 = 0.2;

    /// Whether something that came at `earlier` is reported before `later`.
    pub(super) fn has_report_between(self, earlier: Moment, later: Moment) -> bool {
        let reports = |at: Moment| at.since_start().as_nanos() / self.reports_every.as_nanos();
        reports(earlier) < reports(later)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pub(super) class: Class,
    pub(super) candidates: usize,
    pub(super) observers: usize,
    /// The longest that candidates ask for.
    pub(super) ttl: Duration,
    /// What share of it some of them ask for.
    pub(super) shorter: f64,
    /// By what factor the server grants more or less than it is asked for.
    pub(super) granted_share: f64,
    /// The longest that the server grants.
    pub(super) granted: Duration,
    pub(super) config: TermConfig,
    /// Where the server times sessions, if that is not where it answers.
    pub(super) lag: Option<Lag>,
    /// What the server declares, and how much of it it makes use of.
    pub(super) early_expiry: Duration,
    pub(super) expires_early_by: Duration,
    pub(super) server_pace: Pace,
    /// The rates of candidates' clocks, beside true time.
    pub(super) slowest: f64,
    pub(super) fastest: f64,
    pub(super) lateness: Duration,
    pub(super) stalls: Stalls,
    /// How probable it is that a campaign or a resignation is not dropped before its end.
    pub(super) certainty: f64,
    pub(super) network: Profile,
    /// Faults come this far apart on average.
    pub(super) fault_every: Duration,
    /// How long there are faults.
    pub(super) chaos: Duration,
}

impl Schedule {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let class = match rng.u8(..10) {
            0..=5 => Class::Promised,
            6..=7 => Class::Delayed,
            _ => Class::Unguarded,
        };
        let ttl = Duration::from_secs(pick(rng, &[1, 3, 10, 30]));
        let shorter = pick(rng, &[1.0, 1.0, 0.5]);
        let granted_share = pick(rng, &[1.0, 1.0, 1.0, 0.8, 1.3, 2.0]);
        let granted = ttl.mul_f64(granted_share);
        let clock_error = pick(rng, &[0.0, 0.01, 0.01, 0.05, 0.1]);
        let early_expiry = granted.mul_f64(pick(rng, &[0.0, 0.0, 0.02, 0.08]));
        let config = TermConfig {
            clock_error,
            stop_margin: pick(rng, &[Some(Duration::ZERO), Some(ttl / 20), None, None]),
            // In time of the candidate's own clock, which may be the faster one.
            takeover_delay: match class {
                Class::Delayed => granted.mul_f64(pick(rng, &[1.0, 0.1])),
                Class::Promised | Class::Unguarded => Duration::ZERO,
            },
            step_down: match rng.u8(..4) {
                0 => StepDown::OnFirstError,
                _ => StepDown::AtDeadline,
            },
            progress_within: pick(rng, &[Some(ttl), None, None, None]),
        };
        let lag = (rng.u8(..3) == 0).then(|| Lag {
            reports_every: granted.mul_f64(shorter * Lag::REPORTS_EVERY),
            session_age: granted.mul_f64(shorter * pick(rng, &[0.0, 0.0, 0.15, 0.3])),
        });
        let server_rate = pick(rng, &[1.0, 1.0, 0.98, 1.03]);
        let (slowest, fastest) = match class {
            // A clock that is too fast gives up too early, which does no harm.
            Class::Promised => (1.0 - clock_error, 1.0 + 2.0 * clock_error),
            // The delay is measured by one clock and the deadline by another, which together are off by the clock error.
            Class::Delayed => (1.0 - clock_error / 2.0, 1.0 + clock_error / 2.0),
            Class::Unguarded if lag.is_some() => (0.75, 2.0),
            Class::Unguarded => (0.5, 2.0),
        };
        Self {
            class,
            candidates: match class {
                Class::Delayed => rng.usize(3..=4),
                Class::Promised | Class::Unguarded => rng.usize(2..=4),
            },
            observers: rng.usize(..=1),
            ttl,
            shorter,
            granted_share,
            granted,
            config,
            lag,
            early_expiry,
            expires_early_by: early_expiry.mul_f64(pick(rng, &[0.0, 0.5, 1.0])),
            server_pace: Pace::of_rate(server_rate, Duration::from_secs(rng.u64(1..1_000_000))),
            slowest: slowest * server_rate,
            fastest: fastest * server_rate,
            lateness: Duration::from_micros(pick(rng, &[0, 100, 2_000])),
            stalls: Stalls {
                chance: pick(rng, &[0.0, 0.02, 0.05]),
                ttl,
            },
            certainty: match class {
                Class::Delayed => pick(rng, &[0.5, 0.2]),
                Class::Promised | Class::Unguarded => pick(rng, &[0.9, 0.6, 0.3]),
            },
            network: Profile::draw(rng, ttl),
            fault_every: ttl.mul_f64(pick(rng, &[0.5, 1.5, 5.0])),
            chaos: ttl * rng.u32(8..20),
        }
    }

    /// A candidate's clock. The bounds are drawn often: what goes wrong goes wrong there first.
    pub(super) fn draw_pace(&self, rng: &mut Rng) -> Pace {
        let share = match rng.u8(..4) {
            0 | 1 => 0.0,
            2 => 1.0,
            _ => rng.f64(),
        };
        let rate = self.slowest + (self.fastest - self.slowest) * share;
        // One millionth to the inside, for what rounding takes.
        let inside = if share < 0.5 { 1e-6 } else { -1e-6 };
        let start = draw_between(rng, Duration::ZERO..=Duration::from_secs(1000 * 3600));
        Pace::of_rate(rate + inside, start)
    }

    /// What a candidate asks for.
    pub(super) fn draw_ttl(&self, rng: &mut Rng) -> Duration {
        self.ttl.mul_f64(pick(rng, &[1.0, self.shorter]))
    }

    /// How long the application of a candidate with this time-to-live has to stop.
    pub(super) fn stop_margin(&self, ttl: Duration) -> Duration {
        self.config.stop_margin.unwrap_or(ttl / 10)
    }
}

fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())]
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} candidates, ttl {:?} (some ask for {} of it, granted {:?}, {:?}, declared early {:?}, early by {:?}), clock error {}, \
             stop margin {:?} at most, takeover delay {:?}, {:?}, progress within {:?}, clocks {:.3} to {:.3} of true time and the server's \
             {:.3}, {:?}, {:?}, a fault every {:?} for {:?}",
            self.class.as_str(),
            self.candidates,
            self.ttl,
            self.shorter,
            self.granted,
            self.lag,
            self.early_expiry,
            self.expires_early_by,
            self.config.clock_error,
            self.stop_margin(self.ttl),
            self.config.takeover_delay,
            self.config.step_down,
            self.config.progress_within,
            self.slowest,
            self.fastest,
            f64::from(self.server_pace.rate) / 1e6,
            self.network,
            self.stalls,
            self.fault_every,
            self.chaos,
        )
    }
}
