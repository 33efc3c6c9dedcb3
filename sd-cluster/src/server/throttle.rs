//! Log lines that a peer can cause as often as it likes: one now and then, with how many there were.

use std::sync::Mutex;
use std::time::Duration;

use sd_core::sync::lock;
use tokio::time::Instant;

/// At most one line in this time.
const EVERY: Duration = Duration::from_secs(10);

/// Lines of one kind.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    since: u64,
}

impl Throttle {
    /// Something has happened. Returns how often it has since the last line, this time included, if there is to be a line.
    pub(super) fn count(&self) -> Option<u64> {
        let now = Instant::now();
        let mut told = lock(&self.0);
        told.since += 1;
        if told.at.is_some_and(|at| now.duration_since(at) < EVERY) {
            return None;
        }
        told.at = Some(now);
        Some(std::mem::take(&mut told.since))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_told_at_once_and_the_next_ones_with_their_number_later() {
        let throttle = Throttle::default();
        assert_eq!(throttle.count(), Some(1));
        for _ in 0..100 {
            assert_eq!(throttle.count(), None);
        }
        advance(EVERY).await;
        assert_eq!(throttle.count(), Some(101));
        assert_eq!(throttle.count(), None);
    }
}
