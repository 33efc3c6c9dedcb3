//! Whether a term may be believed in: one deadline, read together with a fresh clock.
//!
//! No timer is involved, so a process that was paused cannot act on what was true before the pause. Once a reader has seen the
//! deadline pass, no later confirmation brings the term back, even if it was on its way at that moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sd_core::clock::Moment;

#[cfg(feature = "simulation")]
use crate::flaw::unless;
use crate::flaw::{Flaw, flawed};

/// Stands for a term whose deadline a reader has seen pass.
const EXPIRED: u64 = 0;
/// Stands for a term that its owner has ended.
const ENDED: u64 = 1;

/// How a term is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Expired,
    Ended,
}

#[derive(Debug)]
pub(crate) struct Validity {
    /// In nanoseconds from the clock's start, or how it is over.
    deadline: AtomicU64,
    /// The last deadline that there was.
    latest: AtomicU64,
}

impl Validity {
    pub(crate) fn until(deadline: Moment) -> Self {
        Self {
            deadline: AtomicU64::new(nanos(deadline)),
            latest: AtomicU64::new(nanos(deadline)),
        }
    }

    /// Whether the term may be believed in at `now`. Once it may not, it never may again.
    pub(crate) fn holds(&self, now: Moment) -> bool {
        let now = nanos(now);
        let mut deadline = self.deadline.load(Ordering::Acquire);
        loop {
            if now < deadline {
                return true;
            }
            if over(deadline).is_some() || flawed(Flaw::SeenExpiryForgotten) {
                return false;
            }
            if flawed(Flaw::FlagInsteadOfClock) {
                return true;
            }
            match self.replace(deadline, EXPIRED) {
                Ok(()) => return false,
                // It was extended in between: look again.
                Err(found) => deadline = found,
            }
        }
    }

    /// Moves the deadline, unless the term is over. Mostly to a later moment; to an earlier one if the server grants less than before.
    pub(crate) fn extend(&self, to: Moment) -> Result<(), Over> {
        let to = nanos(to);
        let mut deadline = self.deadline.load(Ordering::Acquire);
        loop {
            match over(deadline) {
                Some(over) if !flawed(Flaw::LateAnswerRevives) => return Err(over),
                _ => {}
            }
            match self.replace(deadline, to) {
                Ok(()) => {
                    self.latest.store(to, Ordering::Release);
                    return Ok(());
                }
                Err(found) => deadline = found,
            }
        }
    }

    /// Until when it holds unless it is extended or ended; `None` if it is over. Unlike [`holds`](Self::holds), this leaves no trace.
    #[cfg(feature = "simulation")]
    pub(crate) fn holds_until(&self) -> Option<Moment> {
        let deadline = self.deadline.load(Ordering::Acquire);
        let moment = unless(Flaw::FlagInsteadOfClock, deadline, u64::MAX);
        let moment = Moment::from_start(Duration::from_nanos(moment));
        over(deadline).is_none().then_some(moment)
    }

    pub(crate) fn end(&self) {
        self.deadline.store(ENDED, Ordering::Release);
    }

    /// The deadline, or the last one if the term is over.
    pub(crate) fn deadline(&self) -> Moment {
        Moment::from_start(Duration::from_nanos(self.latest.load(Ordering::Acquire)))
    }

    fn replace(&self, expected: u64, new: u64) -> Result<(), u64> {
        self.deadline
            .compare_exchange(expected, new, Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
    }
}

fn over(deadline: u64) -> Option<Over> {
    match deadline {
        EXPIRED => Some(Over::Expired),
        ENDED => Some(Over::Ended),
        _ => None,
    }
}

fn nanos(moment: Moment) -> u64 {
    u64::try_from(moment.since_start().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn it_holds_up_to_its_deadline_and_as_far_as_it_is_extended() {
        let validity = Validity::until(at(10));
        assert!(validity.holds(at(9)));
        assert_eq!(validity.extend(at(20)), Ok(()));
        assert!(validity.holds(at(19)));
        assert_eq!(validity.extend(at(15)), Ok(()));
        assert!(!validity.holds(at(15)), "the server grants less now");
    }

    #[test]
    fn once_seen_to_be_over_it_stays_over() {
        let validity = Validity::until(at(10));
        assert!(!validity.holds(at(10)));
        assert_eq!(validity.extend(at(20)), Err(Over::Expired));
        assert!(!validity.holds(at(5)), "not even by a clock that lags");
        assert_eq!(validity.deadline(), at(10), "it would have ended then");

        let ended = Validity::until(at(10));
        ended.end();
        assert!(!ended.holds(at(1)));
        assert_eq!(ended.extend(at(20)), Err(Over::Ended));
    }
}
