//! For how long an endpoint that turns calls away gets none.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Each time is twice as long as the one before, unless the endpoint has served well in between for as long as the longest.
#[derive(Debug, Default)]
pub(crate) struct Ejection {
    pub(crate) is_on: bool,
    next: Option<Duration>,
    last_end: Option<Instant>,
}

impl Ejection {
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
        self.last_end = Some(now + time);
        self.is_on = true;
        time
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
            now += time;
        }
        now += LONGEST + Duration::from_millis(1);
        assert_eq!(ejection.begin(now), FIRST);
    }
}
