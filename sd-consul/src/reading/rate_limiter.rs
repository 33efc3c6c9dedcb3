//! How often a feed may read. Each answer holds the whole set, so a service that changes all the time is read at a pace that
//! depends on its size: at once after a quiet while, and never more than a bounded number of bytes each second.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Reads that may follow each other at once.
const BURST: f64 = 2.0;
/// The time between two reads of next to nothing.
const SHORTEST: Duration = Duration::from_millis(10);
/// The time between two reads, however large they are.
const LONGEST: Duration = Duration::from_secs(5);
const BYTES_EACH_SECOND: f64 = 8.0 * 1024.0 * 1024.0;

/// A bucket of up to [`BURST`] tokens, one for each read.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    tokens: f64,
    counted_at: Instant,
    /// How long a token takes to come back.
    every: Duration,
}

impl RateLimiter {
    pub(crate) fn new() -> Self {
        Self {
            tokens: BURST,
            counted_at: Instant::now(),
            every: SHORTEST,
        }
    }

    /// Returns when a read may begin. Cancel-safe.
    pub(crate) async fn ready(&mut self) {
        self.count();
        if self.tokens < 1.0 {
            sleep_until(self.counted_at + self.every.mul_f64(1.0 - self.tokens)).await;
        }
    }

    /// Takes note of a read of so many bytes.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.count();
        self.tokens = (self.tokens - 1.0).max(0.0);
        #[expect(clippy::cast_precision_loss, reason = "no answer has 2^52 bytes")]
        let seconds = bytes as f64 / BYTES_EACH_SECOND;
        self.every = Duration::from_secs_f64(seconds).clamp(SHORTEST, LONGEST);
    }

    fn count(&mut self) {
        let now = Instant::now();
        let passed = now.duration_since(self.counted_at).as_secs_f64();
        self.tokens = (self.tokens + passed / self.every.as_secs_f64()).min(BURST);
        self.counted_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn reads(rate: &mut RateLimiter, count: usize, bytes: usize) -> Duration {
        let start = Instant::now();
        for _ in 0..count {
            rate.ready().await;
            rate.spend(bytes);
        }
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn two_changes_after_a_quiet_while_are_read_at_once() {
        let mut rate = RateLimiter::new();
        for _ in 0..3 {
            assert_eq!(reads(&mut rate, 2, 1000).await, Duration::ZERO);
            tokio::time::sleep(2 * SHORTEST).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn churn_becomes_polling_at_a_pace_that_depends_on_the_size() {
        let mut rate = RateLimiter::new();
        let small = reads(&mut rate, 102, 1000).await;
        assert!(
            small >= 100 * SHORTEST && small < 110 * SHORTEST,
            "{small:?}"
        );
        let mut rate = RateLimiter::new();
        let large = reads(&mut rate, 12, 16 * 1024 * 1024).await;
        let expected = Duration::from_secs(20);
        assert!(
            large.abs_diff(expected) < Duration::from_millis(100),
            "{large:?}"
        );
    }
}
