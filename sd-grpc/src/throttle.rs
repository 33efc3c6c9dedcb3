//! Stops retries while most calls fail: gRPC's token bucket (proposal A6), in thousandths of a token.

use std::sync::atomic::{AtomicI64, Ordering};

use serde::Deserialize;

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
}

impl Default for RetryThrottle {
    fn default() -> Self {
        Self {
            max_tokens: 200,
            token_ratio: 0.1,
        }
    }
}

const TOKEN: i64 = 1000;

#[derive(Debug)]
pub(crate) struct Throttle {
    tokens: AtomicI64,
    max: i64,
    refill: i64,
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
            refill: (throttle.token_ratio * 1000.0).round() as i64,
        }
    }

    /// Notes a failed attempt, and says whether another one may follow.
    pub(crate) fn failed(&self) -> bool {
        let after = self.tokens.fetch_sub(TOKEN, Ordering::Relaxed) - TOKEN;
        if after < 0 {
            self.tokens.fetch_max(0, Ordering::Relaxed);
        }
        after > self.max / 2
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
        });
        assert!(throttle.failed());
        assert!(!throttle.failed());
        throttle.succeeded();
        throttle.succeeded();
        throttle.succeeded();
        throttle.succeeded();
        assert!(throttle.failed());
    }

    #[test]
    fn a_long_outage_does_not_dig_below_the_ground() {
        let throttle = Throttle::new(RetryThrottle {
            max_tokens: 2,
            token_ratio: 1.0,
        });
        for _ in 0..100 {
            throttle.failed();
        }
        for _ in 0..4 {
            throttle.succeeded();
        }
        assert!(!throttle.failed(), "one of two tokens left is half of them");
        throttle.succeeded();
        assert_eq!(throttle.tokens.load(Ordering::Relaxed), 2 * TOKEN);
    }
}
