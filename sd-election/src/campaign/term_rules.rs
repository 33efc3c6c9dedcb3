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

/// Everything that the decisions about one term depend on.
#[derive(Clone, Debug)]
pub(crate) struct TermRules {
    /// What is asked for; what is granted rules.
    pub(crate) ttl: Duration,
    pub(crate) config: TermConfig,
    /// What the server promises; `None` before it was asked.
    pub(crate) promise: Option<Safety>,
    /// Whether the server has let this candidate in before. Then rights that are missing are a matter of waiting, for a password
    /// that is being changed for instance, and not a mistake.
    pub(crate) was_admitted: bool,
}

/// The last confirmation, and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Confirmed {
    pub(crate) sent: Moment,
    pub(crate) ttl: Duration,
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
        let counts_from = match (answer.counts_from, before) {
            (CountsFrom::ThisSend, _) => Some(sent),
            (CountsFrom::PreviousSend, _) if flawed(Flaw::PreviousSendIgnored) => Some(sent),
            (CountsFrom::PreviousSend, None) => None,
            // Too close to the one before to prove anything about it.
            (CountsFrom::PreviousSend, Some(before))
                if sent.since(before.sent) < shortest_spacing(ttl) =>
            {
                return before;
            }
            (CountsFrom::PreviousSend, Some(before)) => Some(before.sent),
        };
        Confirmed {
            sent,
            ttl: answer.ttl,
            // The newest answer rules, also if it grants less than the one before.
            hand_over: counts_from.map(|from| from + self.span(ttl)),
        }
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
        error.kind() == ErrorKind::Denied && !self.was_admitted
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

/// How far apart two confirmations must be sent for the second to prove that the first arrived everywhere.
fn shortest_spacing(ttl: Duration) -> Duration {
    ttl / 4
}

/// How long one confirmation may take, so that at least two fit.
pub(crate) fn attempt_limit(ttl: Duration) -> Duration {
    ttl / 4
}
