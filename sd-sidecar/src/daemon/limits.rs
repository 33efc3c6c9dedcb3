//! How many requests each caller may send.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Counts the requests of each caller: as many at once as in a second, and no more on average.
#[derive(Debug, Default)]
pub(crate) struct RequestRates {
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    of_callers: HashMap<Arc<str>, Bucket>,
    /// When those that had become full were taken out last.
    swept_at: Option<Instant>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// Callers that are counted one by one. Those of other hosts who show no token are counted as well, so that there may be many.
const MOST_CALLERS: usize = 10_000;
/// Looking at all of them takes its time, and a bucket is full again after a second.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

impl RequestRates {
    /// Counts a request that costs as much as `cost` usual ones.
    ///
    /// # Errors
    /// When to ask again, if there were too many.
    pub(crate) fn take(
        &self,
        caller: &Arc<str>,
        cost: usize,
        per_second: u32,
        now: Instant,
    ) -> Result<(), Duration> {
        let (rate, cost) = (f64::from(per_second.max(1)), as_number(cost));
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let buckets = &mut *buckets;
        if !buckets.of_callers.contains_key(caller) && buckets.of_callers.len() >= MOST_CALLERS {
            let is_recent = |at: Instant| now.saturating_duration_since(at) < SWEEP_EVERY;
            if !buckets.swept_at.is_some_and(is_recent) {
                buckets.swept_at = Some(now);
                // One that is full again is as good as one that is not there.
                let is_needed = |bucket: &Bucket| bucket.refilled(rate, now) < rate;
                buckets.of_callers.retain(|_, bucket| is_needed(bucket));
            }
            if buckets.of_callers.len() >= MOST_CALLERS {
                return Err(SWEEP_EVERY);
            }
        }
        let bucket = buckets
            .of_callers
            .entry(Arc::clone(caller))
            .or_insert(Bucket {
                left: rate,
                at: now,
            });
        bucket.left = bucket.refilled(rate, now);
        bucket.at = now;
        // One that costs more than a second's is let through when nothing else was asked for, and paid for later.
        let needed = cost.min(rate);
        if bucket.left >= needed {
            bucket.left -= cost;
            return Ok(());
        }
        Err(Duration::from_secs_f64((needed - bucket.left) / rate))
    }

    /// Adds to what a request has cost, once that is known. The next ones pay for it, for at most [`MOST_DEBT`] seconds.
    fn charge(&self, caller: &Arc<str>, cost: usize, per_second: u32) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(bucket), 1..) = (buckets.of_callers.get_mut(caller), cost) {
            let least = -MOST_DEBT * f64::from(per_second.max(1));
            bucket.left = (bucket.left - as_number(cost)).max(least);
        }
    }
}

/// In a request's extensions: what it costs beside what is known of it at first, in usual requests. The next ones of its caller pay for
/// that, also if it leaves before its answer.
#[derive(Clone, Debug)]
pub(crate) struct Bill {
    rates: Arc<RequestRates>,
    caller: Arc<str>,
    per_second: u32,
}

impl Bill {
    pub(crate) fn new(rates: &Arc<RequestRates>, caller: &Arc<str>, per_second: u32) -> Self {
        Self {
            rates: Arc::clone(rates),
            caller: Arc::clone(caller),
            per_second,
        }
    }

    pub(crate) fn add(&self, cost: usize) {
        self.rates.charge(&self.caller, cost, self.per_second);
    }
}

/// How many seconds a caller may have to wait for what it has asked for.
const MOST_DEBT: f64 = 5.0;

fn as_number(cost: usize) -> f64 {
    u32::try_from(cost).map_or(f64::from(u32::MAX), f64::from)
}

impl Bucket {
    fn refilled(&self, rate: f64, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + passed * rate).min(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_gets_its_rate_and_a_burst_and_no_other_pays_for_it() {
        let rates = RequestRates::default();
        let (hostile, other) = ("hostile".into(), "other".into());
        let begin = Instant::now();
        let mut granted = 0;
        for millisecond in 0..1000 {
            let now = begin + Duration::from_millis(millisecond);
            granted += (0..10)
                .filter(|_| rates.take(&hostile, 1, 100, now).is_ok())
                .count();
            if millisecond % 10 == 0 {
                assert!(rates.take(&other, 1, 100, now).is_ok());
            }
        }
        // The burst, and what a second adds.
        assert!((190..=200).contains(&granted), "{granted}");
        let wait = rates
            .take(&hostile, 1, 100, begin + Duration::from_secs(1))
            .err();
        let later =
            begin + Duration::from_secs(1) + wait.unwrap_or_default() + Duration::from_micros(1);
        assert!(rates.take(&hostile, 1, 100, later).is_ok());
    }

    #[test]
    fn long_bodies_are_paid_for() {
        let rates = RequestRates::default();
        let caller = "caller".into();
        let begin = Instant::now();
        assert!(rates.take(&caller, 300, 100, begin).is_ok());
        let later = begin + Duration::from_millis(1900);
        assert!(rates.take(&caller, 1, 100, later).is_err());
        let later = begin + Duration::from_millis(2100);
        assert!(rates.take(&caller, 1, 100, later).is_ok());
        rates.charge(&caller, usize::MAX, 100);
        let wait = rates.take(&caller, 1, 100, later).unwrap_err();
        assert!(wait <= Duration::from_millis(5010), "{wait:?}");
    }

    #[test]
    fn however_many_callers_there_are_few_are_kept() {
        let rates = RequestRates::default();
        let begin = Instant::now();
        for caller in 0..2 * MOST_CALLERS {
            let _ = rates.take(&caller.to_string().into(), 1, 10, begin);
        }
        let count = || rates.buckets.lock().unwrap().of_callers.len();
        assert_eq!(count(), MOST_CALLERS);
        let later = begin + Duration::from_secs(1);
        assert!(rates.take(&"late".into(), 1, 10, later).is_ok());
        assert_eq!(count(), 1);
    }
}
