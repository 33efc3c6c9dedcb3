//! What may be concluded from a confirmation, and when: the arithmetic of the local deadline. Pure functions.
//!
//! A server that has answered a confirmation does not end the lease before the granted time-to-live has passed since it *processed*
//! that confirmation, which was after the moment we sent it. So a deadline counted from the sending, on a clock whose rate is off by
//! at most `clock_error`, lies before anything that the server can do. Counted from the answer it would not.

use std::time::Duration;

use sd_core::clock::Moment;
use sd_core::port::{Confirmation, CountsFrom, Predecessor, Safety};
use sd_core::{Error, ErrorKind};

use crate::config::{StepDown, TermConfig};
use crate::flaw::{Flaw, flawed, unless};

/// How long after the answer to a confirmation the next one proves that the first was timed, in times-to-live.
const SHORTEST_SPACING: f64 = 0.25;

/// Everything that the decisions about one term depend on.
#[derive(Clone, Debug)]
pub(crate) struct TermRules {
    /// What is asked for; what is granted rules.
    pub(crate) ttl: Duration,
    pub(crate) config: TermConfig,
    /// What the server promises; `None` before it was asked.
    pub(crate) promise: Option<Safety>,
    /// Whether the server has let this candidate in before. Then a refusal is a matter of waiting, for a password that is being
    /// changed or a proxy that is being restarted for instance, and not a mistake.
    pub(crate) was_admitted: bool,
}

/// The last confirmation, and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Confirmed {
    /// When the confirmation was sent that a later one may prove.
    pub(crate) sent: Moment,
    /// Only what is sent from here on proves that one.
    pub(crate) proves_from: Moment,
    pub(crate) ttl: Duration,
    /// When the latest request was sent that the server has timed for certain.
    pub(crate) proven: Option<Moment>,
    /// Until here the server does not hand the term over. `None` if that takes one more confirmation.
    pub(crate) hand_over: Option<Moment>,
}

impl TermRules {
    /// What follows from a confirmation that was sent at `sent` and is answered at `now`.
    pub(crate) fn confirmed(
        &self,
        sent: Moment,
        now: Moment,
        answer: Confirmation,
        before: Option<Confirmed>,
    ) -> Confirmed {
        let sent = unless(Flaw::DeadlineFromReply, sent, now);
        let ttl = unless(Flaw::TtlFromConfiguration, answer.ttl, self.ttl);
        let proves_from = now + self.spacing(answer.ttl);
        let (waiting, proven) = match answer.counts_from {
            CountsFrom::ThisSend => ((sent, sent), Some(sent)),
            CountsFrom::EarlierSend(_) if flawed(Flaw::EarlierSendIgnored) => {
                ((sent, sent), Some(sent))
            }
            CountsFrom::EarlierSend(named) => {
                // What comes after this send was read from another clock, and proves nothing.
                let named = Some(named).filter(|named| *named <= sent);
                let (waiting, proven) = match before {
                    None => ((sent, proves_from), None),
                    Some(before) if sent >= before.proves_from => {
                        ((sent, proves_from), Some(before.sent))
                    }
                    Some(before) => ((before.sent, before.proves_from), before.proven),
                };
                (waiting, named.max(proven))
            }
        };
        Confirmed {
            sent: waiting.0,
            proves_from: waiting.1,
            ttl: answer.ttl,
            proven,
            // The newest answer rules, also if it grants less than the one before.
            hand_over: proven.map(|from| from + self.span(ttl)),
        }
    }

    /// How long after the answer to a confirmation the next one must be sent to prove that the first was timed. The answer tells
    /// when it had come at the latest. The clock of the server may be the slower one.
    fn spacing(&self, ttl: Duration) -> Duration {
        let spacing = ttl.mul_f64(SHORTEST_SPACING * (1.0 + self.config.clock_error));
        unless(Flaw::SpacingIgnored, spacing, Duration::ZERO)
    }

    /// How much of a granted time-to-live can be relied on.
    fn span(&self, ttl: Duration) -> Duration {
        let clock_error = unless(Flaw::ClockErrorIgnored, self.config.clock_error, 0.0);
        let early = unless(
            Flaw::EarlyExpiryIgnored,
            self.early_expiry(),
            Duration::ZERO,
        );
        ttl.mul_f64(1.0 - clock_error).saturating_sub(early)
    }

    /// How much sooner than promised the server may end a lease.
    pub(crate) fn early_expiry(&self) -> Duration {
        self.promise
            .as_ref()
            .map_or(Duration::ZERO, |promise| promise.early_expiry)
    }

    /// How long after its last confirmation an entry may still be at the server.
    pub(crate) fn gone_within(&self, ttl: Duration) -> Duration {
        self.promise
            .as_ref()
            .map_or(ttl, |promise| promise.failover_within(ttl))
    }

    /// When belief ends, for the term to have stopped when the server may hand it over.
    pub(crate) fn deadline(&self, hand_over: Moment) -> Moment {
        hand_over - unless(Flaw::StopMarginIgnored, self.stop_margin(), Duration::ZERO)
    }

    pub(crate) fn stop_margin(&self) -> Duration {
        self.config.stop_margin.unwrap_or(self.ttl / 10)
    }

    /// Whether a term of this time-to-live leaves room for a renewal that failed and another one.
    pub(crate) fn is_long_enough(&self, ttl: Duration) -> bool {
        self.span(ttl).saturating_sub(self.stop_margin()) >= renew_every(ttl) + attempt_limit(ttl)
    }

    /// Whether enough is left of a confirmation to begin a term on it. Otherwise another one is asked for first.
    pub(crate) fn is_fresh(&self, confirmed: Confirmed, now: Moment) -> bool {
        flawed(Flaw::TermUnconfirmed)
            || confirmed
                .hand_over
                .is_some_and(|hand_over| self.deadline(hand_over).since(now) >= confirmed.ttl / 5)
    }

    /// Whether an error of joining means that the candidate will never be let in.
    pub(crate) fn is_refused(&self, error: &Error) -> bool {
        matches!(error.kind(), ErrorKind::Denied | ErrorKind::Rejected) && !self.was_admitted
    }

    pub(crate) fn steps_down_on_error(&self) -> bool {
        self.config.step_down == StepDown::OnFirstError && !flawed(Flaw::StepDownIgnored)
    }

    /// How long to wait before believing in a term whose predecessor is not known to have stopped. Its leader may believe for the
    /// time-to-live that it was granted, whatever ours is.
    pub(crate) fn takeover_delay(&self, before: Predecessor) -> Duration {
        let delay = self.config.takeover_delay;
        match before {
            Predecessor::Unknown { ttl } if !delay.is_zero() => {
                let delay = unless(Flaw::PredecessorTtlIgnored, delay.max(ttl), delay);
                unless(Flaw::TakeoverDelayIgnored, delay, Duration::ZERO)
            }
            _ => Duration::ZERO,
        }
    }
}

/// How often an entry is confirmed: three times within its time-to-live.
pub(crate) fn renew_every(ttl: Duration) -> Duration {
    ttl / 3
}

/// How long one confirmation may take, so that at least two fit.
pub(crate) fn attempt_limit(ttl: Duration) -> Duration {
    ttl / 4
}
