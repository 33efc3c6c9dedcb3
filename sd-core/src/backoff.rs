//! Growing, jittered delays between attempts.

use std::time::Duration;

/// Exponential delays with full jitter: attempt `n` waits between zero and `min(cap, first * 2^n)`, at random, so that many
/// clients that failed together do not come back together.
///
/// Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    attempt: u32,
}

impl Backoff {
    /// Delays that start at up to `first` and never exceed `cap`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self {
            first,
            cap,
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

/// `span` changed by up to ± `share` of itself, at random.
pub(crate) fn jittered(span: Duration, share: f64) -> Duration {
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
    fn delays_spread_over_the_whole_range() {
        let (mut low, mut high) = (0, 0);
        for _ in 0..1000 {
            let delay = Backoff::new(Duration::from_secs(1), Duration::from_secs(1)).next_delay();
            low += u32::from(delay < Duration::from_millis(250));
            high += u32::from(delay > Duration::from_millis(750));
        }
        assert!(low > 150 && high > 150, "{low} {high}");
    }
}
