//! For how long an endpoint that turns calls away gets none.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Each ejection is twice as long as the one before, up to [`LONGEST`]. After [`LONGEST`] without one, they begin at [`FIRST`]
/// again.
#[derive(Debug, Default)]
pub(crate) struct Ejection {
    /// When the one that is on ends.
    until: Option<Instant>,
    next: Option<Duration>,
    last_end: Option<Instant>,
}

impl Ejection {
    pub(crate) fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// When it ends, if it is on.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Begins, and says how long it lasts.
    pub(crate) fn begin(&mut self, now: Instant) -> Duration {
        if self
            .last_end
            .is_some_and(|end| now.saturating_duration_since(end) > LONGEST)
        {
            self.next = None;
        }
        let time = self.next.unwrap_or(FIRST);
        self.next = Some((2 * time).min(LONGEST));
        self.until = Some(now + time);
        time
    }

    /// Ends, in time or early.
    pub(crate) fn end(&mut self, now: Instant) {
        self.until = None;
        self.last_end = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_longer_until_the_endpoint_has_served_for_a_while() {
        let mut ejection = Ejection::default();
        let mut now = Instant::now();
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let time = ejection.begin(now);
            assert_eq!(time, Duration::from_secs(seconds));
            assert_eq!(ejection.until(), Some(now + time));
            now += time;
            ejection.end(now);
            assert!(!ejection.is_on());
        }
        now += LONGEST + Duration::from_millis(1);
        assert_eq!(ejection.begin(now), FIRST);
    }
}
