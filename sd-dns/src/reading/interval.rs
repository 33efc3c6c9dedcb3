//! When to read a name again.

use std::time::Duration;

use crate::config::validation::Settings;

/// The largest part of an interval that is added at random, so that names that were first read together spread.
const SHARE: u32 = 10;
/// No more than this is added: a change is to be seen half a second after the time-to-live has passed.
pub(crate) const MOST_ADDED: Duration = Duration::from_millis(300);

/// How long an answer is taken to hold that says `ttl` seconds.
pub(crate) fn holds(ttl: u32, settings: &Settings) -> Duration {
    Duration::from_secs(ttl.into()).clamp(settings.min_interval, settings.max_interval)
}

/// How long to wait after an answer that `holds` for so long. Nothing is taken off: a cache would give the same answer again.
pub(crate) fn interval(holds: Duration) -> Duration {
    holds + (holds / SHARE).min(MOST_ADDED).mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DnsConfig;
    use crate::config::rules::{DEFAULT_MAX_INTERVAL, DEFAULT_MIN_INTERVAL};

    #[test]
    fn any_ttl_is_kept_within_bounds_and_spread() {
        let settings = DnsConfig::srv().checked().unwrap();
        let (min, max) = (DEFAULT_MIN_INTERVAL, DEFAULT_MAX_INTERVAL);
        let year = 365 * 24 * 3600;
        for (ttl, least) in [
            (0, min),
            (4, min),
            (30, Duration::from_secs(30)),
            (year, max),
        ] {
            let all: Vec<_> = (0..200).map(|_| interval(holds(ttl, &settings))).collect();
            assert!(
                all.iter()
                    .all(|one| *one >= least && *one <= least + MOST_ADDED)
            );
            let (first, last) = (all.iter().min().unwrap(), all.iter().max().unwrap());
            assert!(*last > *first + MOST_ADDED / 2, "{first:?} {last:?}");
        }
    }
}
