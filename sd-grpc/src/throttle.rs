//! Stops retries while most calls fail: gRPC's token bucket (proposal A6), in thousandths of a token.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

/// Limits the retries of a channel: the token bucket of gRPC proposal A6.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RetryThrottle {
    /// The size of the bucket. Each failed attempt takes one token; while the bucket is at most half full, nothing is retried.
    /// Default 200: a connection may break with a hundred calls in flight.
    pub max_tokens: u32,
    /// How many tokens a successful call puts back, from 0 to 1. Default 0.1: in the long run at most one retry per ten
    /// successes.
    pub token_ratio: f32,
    /// How many retries in a second are allowed whatever the bucket holds, so that a channel of few calls, or one with a bad
    /// endpoint, does not stop retrying for good. At most 1 000 000. Default 10.
    pub floor_per_second: u32,
}

impl Default for RetryThrottle {
    fn default() -> Self {
        Self {
            max_tokens: 200,
            token_ratio: 0.1,
            floor_per_second: 10,
        }
    }
}

const TOKEN: i64 = 1000;

#[derive(Debug)]
pub(crate) struct Throttle {
    tokens: AtomicI64,
    max: i64,
    refill: i64,
    floor: Option<Floor>,
}

/// Lets one through in each interval.
#[derive(Debug)]
struct Floor {
    since: Instant,
    interval: Duration,
    /// When the next one may pass, in microseconds.
    next: AtomicU64,
}

impl Floor {
    fn pass(&self) -> bool {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let now = micros(self.since.elapsed());
        let after = now.saturating_add(micros(self.interval));
        let passed = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                (next <= now).then_some(after)
            });
        passed.is_ok()
    }
}

impl Throttle {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a checked ratio between 0 and 1 of a thousand"
    )]
    pub(crate) fn new(throttle: RetryThrottle) -> Self {
        let max = i64::from(throttle.max_tokens) * TOKEN;
        Self {
            tokens: AtomicI64::new(max),
            max,
            floor: Duration::from_secs(1)
                .checked_div(throttle.floor_per_second)
                .map(|interval| Floor {
                    since: Instant::now(),
                    interval,
                    next: AtomicU64::new(0),
                }),
            refill: (throttle.token_ratio * 1000.0).round() as i64,
        }
    }

    /// Notes a failed attempt, also of a call that is not sent again.
    pub(crate) fn failed(&self) {
        let before = self.tokens.fetch_sub(TOKEN, Ordering::Relaxed);
        if before < TOKEN {
            self.tokens.fetch_max(0, Ordering::Relaxed);
        }
    }

    /// Says whether a call may be sent again. Only for one to which nothing else is in the way: it may use up the floor.
    pub(crate) fn may_retry(&self) -> bool {
        self.tokens.load(Ordering::Relaxed) > self.max / 2
            || self.floor.as_ref().is_some_and(Floor::pass)
    }

    /// Notes a successful call. Costs one load while the bucket is full, which it nearly always is.
    pub(crate) fn succeeded(&self) {
        if self.tokens.load(Ordering::Relaxed) < self.max {
            self.tokens.fetch_add(self.refill, Ordering::Relaxed);
            self.tokens.fetch_min(self.max, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_end_at_half_a_bucket_and_come_back_with_successes() {
        let throttle = Throttle::new(RetryThrottle {
            max_tokens: 4,
            token_ratio: 0.5,
            floor_per_second: 0,
        });
        throttle.failed();
        assert!(throttle.may_retry());
        throttle.failed();
        assert!(!throttle.may_retry());
        throttle.succeeded();
        assert!(throttle.may_retry());
    }

    #[tokio::test(start_paused = true)]
    async fn some_retries_are_allowed_whatever_the_bucket_holds() {
        let throttle = Throttle::new(RetryThrottle {
            max_tokens: 0,
            token_ratio: 0.0,
            floor_per_second: 10,
        });
        let mut allowed = 0;
        for _ in 0..1_000 {
            throttle.failed();
            allowed += u32::from(throttle.may_retry());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(allowed, 10);
    }

    #[test]
    fn a_long_outage_does_not_dig_below_the_ground() {
        let throttle = Throttle::new(RetryThrottle {
            max_tokens: 2,
            token_ratio: 1.0,
            floor_per_second: 0,
        });
        for _ in 0..100 {
            throttle.failed();
        }
        throttle.succeeded();
        assert!(!throttle.may_retry(), "one of two tokens is half of them");
        throttle.succeeded();
        assert!(throttle.may_retry());
        assert_eq!(throttle.tokens.load(Ordering::Relaxed), 2 * TOKEN);
    }
}
