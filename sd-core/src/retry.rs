//! What a loop does after an error, and the growing, jittered delays between its attempts.

use std::time::Duration;

use tokio::time::Instant;

pub use crate::error::Retry;
use crate::error::{Error, ErrorKind};

/// A shorter bound would keep a processor busy with attempts.
const SHORTEST: Duration = Duration::from_millis(1);
/// Spans from configuration are cut to 30 years, as tokio does it. A later time never comes.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
/// The delay before a request is repeated that is known here to be wrong or unsupported.
const SLOW_RETRY: Duration = Duration::from_secs(30);
const SLOW_RETRY_JITTER: f64 = 0.2;
/// The longest pause that a server can ask for, so that one wrong answer does not stop retries for good.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// Exponential back-off with full jitter: attempt `n`, counted from 0, waits a random time between zero and `min(cap, first *
/// 2^n)`. Many clients that failed together therefore do not come back together.
///
/// Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    attempt: u32,
}

impl Backoff {
    /// Delays that start at up to `first` and never exceed `cap`. Both are at least 1 ms.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self {
            first: first.max(SHORTEST),
            cap: cap.max(SHORTEST),
            attempt: 0,
        }
    }

    /// The delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let factor = 1u32.checked_shl(self.attempt).unwrap_or(u32::MAX);
        self.attempt = self.attempt.saturating_add(1);
        let ceiling = self.first.saturating_mul(factor).min(self.cap);
        ceiling.mul_f64(fastrand::f64())
    }

    /// How many delays were handed out since the last reset.
    pub fn attempts(&self) -> u32 {
        self.attempt
    }

    /// Starts over, after things have been good for a while.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// When to open the next feed after one has ended: the one rule for every feed, of instances and of leaders.
///
/// Delays grow from failure to failure, and start over after a feed that lived for a while. An error that no retry of the same
/// request can mend ([`Retry::Never`]) still leads to a slow retry, every 30 s or so, since a file or a source may be replaced. What a
/// server says never is one of these. Only [`Closed`](ErrorKind::Closed) is final: its owner closed the registry.
#[derive(Clone, Debug)]
pub struct FeedRetry {
    backoff: Backoff,
    stable_after: Duration,
}

/// What follows a feed that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextFeed {
    /// Another one after this delay, which may resume at the position of the last one.
    Resume(Duration),
    /// Another one after this delay, which reads everything.
    ReadAll(Duration),
    /// None.
    Never,
}

impl FeedRetry {
    /// Delays as of [`Backoff::new`]; a feed that lived for `stable_after` resets them.
    pub fn new(first: Duration, cap: Duration, stable_after: Duration) -> Self {
        Self {
            backoff: Backoff::new(first, cap),
            stable_after,
        }
    }

    /// What follows a feed that ended with `error` after it had `lived` for so long.
    pub fn next(&mut self, lived: Duration, error: &Error) -> NextFeed {
        if lived >= self.stable_after {
            self.backoff.reset();
        }
        match error.kind().retry() {
            Retry::Backoff => NextFeed::Resume(self.backoff.next_delay()),
            Retry::After(asked) => NextFeed::Resume(paced(asked, &mut self.backoff)),
            Retry::Resync => NextFeed::ReadAll(self.backoff.next_delay()),
            Retry::Never if error.kind() == ErrorKind::Closed => NextFeed::Never,
            Retry::Never => NextFeed::Resume(jittered(SLOW_RETRY, SLOW_RETRY_JITTER)),
        }
    }
}

/// How long to wait if a server asked for `asked`: at least the next delay, at most five minutes.
pub(crate) fn paced(asked: Duration, backoff: &mut Backoff) -> Duration {
    asked.max(backoff.next_delay()).min(LONGEST_PAUSE)
}

/// `span` after `at`, or a time that never comes.
pub(crate) fn later(at: Instant, span: Duration) -> Instant {
    at + span.min(FAR)
}

/// `span` changed by up to ± `share` of itself, at random.
pub(crate) fn jittered(span: Duration, share: f64) -> Duration {
    let span = span.min(FAR);
    span.mul_f64(1.0 + share * (2.0 * fastrand::f64() - 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_delay_stays_below_its_ceiling_for_ever(first in 1..500u64, cap in 1..60_000u64, tries in 1..200u32) {
            let (first, cap) = (Duration::from_millis(first), Duration::from_millis(cap));
            let mut backoff = Backoff::new(first, cap);
            for attempt in 0..tries {
                let ceiling = first.saturating_mul(2u32.saturating_pow(attempt)).min(cap);
                prop_assert!(backoff.next_delay() <= ceiling);
            }
            backoff.reset();
            prop_assert!(backoff.next_delay() <= first);
        }
    }

    #[test]
    fn what_a_server_asks_for_is_kept_within_bounds() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, second);
        let mut at_once = Duration::ZERO;
        for _ in 0..100 {
            at_once += paced(Duration::ZERO, &mut backoff);
        }
        assert!(at_once > 20 * second, "{at_once:?}");
        assert_eq!(paced(42 * second, &mut backoff), 42 * second);
        assert_eq!(paced(Duration::MAX, &mut backoff), LONGEST_PAUSE);
    }

    #[test]
    fn a_backoff_of_nothing_still_pauses() {
        let mut backoff = Backoff::new(Duration::ZERO, Duration::ZERO);
        let paused: Duration = (0..1000).map(|_| backoff.next_delay()).sum();
        assert!(paused > Duration::from_millis(200), "{paused:?}");
    }

    #[test]
    fn absurd_spans_do_not_overflow() {
        let now = Instant::now();
        assert!(later(now, Duration::MAX) > now + FAR / 2);
        assert!(jittered(Duration::MAX, 0.2) > FAR / 2);
        let mut backoff = Backoff::new(Duration::MAX, Duration::MAX);
        later(now, backoff.next_delay());
    }

    #[test]
    fn delays_spread_over_the_whole_range() {
        let (mut low, mut high) = (0, 0);
        for _ in 0..1000 {
            let delay = Backoff::new(Duration::from_secs(1), Duration::from_secs(1)).next_delay();
            low += u32::from(delay < Duration::from_millis(250));
            high += u32::from(delay > Duration::from_millis(750));
        }
        assert!(low > 150 && high > 150, "{low} {high}");
    }

    #[test]
    fn only_a_closed_source_ends_a_feed_for_good() {
        let mut retry = FeedRetry::new(SHORTEST, SHORTEST, Duration::from_secs(10));
        let mut next = |kind| retry.next(Duration::ZERO, &Error::new(kind, "test"));
        assert_eq!(next(ErrorKind::Closed), NextFeed::Never);
        for kind in [ErrorKind::InvalidInput, ErrorKind::Unsupported] {
            let NextFeed::Resume(delay) = next(kind) else {
                panic!("{kind:?} is retried");
            };
            assert!(delay >= SLOW_RETRY.mul_f64(0.8) && delay <= SLOW_RETRY.mul_f64(1.2));
        }
        assert!(matches!(next(ErrorKind::Outdated), NextFeed::ReadAll(_)));
        let NextFeed::Resume(delay) = next(ErrorKind::Rejected) else {
            panic!("what a server says may pass");
        };
        assert!(delay <= SHORTEST);
    }

    #[test]
    fn a_feed_that_lived_for_a_while_starts_the_delays_over() {
        let stable = Duration::from_secs(10);
        let mut retry = FeedRetry::new(SHORTEST, Duration::from_secs(3600), stable);
        let down = Error::new(ErrorKind::Unavailable, "test");
        for _ in 0..20 {
            retry.next(Duration::ZERO, &down);
        }
        assert_eq!(retry.backoff.attempts(), 20);
        retry.next(stable, &down);
        assert_eq!(retry.backoff.attempts(), 1);
    }
}
