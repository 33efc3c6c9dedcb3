//! When to find out whether a server that does well is still the primary.

use std::sync::Mutex;
use std::time::Duration;

use sd_core::sync::lock;
use tokio::time::Instant;

const EVERY: Duration = Duration::from_secs(5);
/// How long that may hold up the request before which it is done.
pub(super) const WITHIN: Duration = Duration::from_millis(500);

/// When that was last found out.
#[derive(Debug, Default)]
pub(super) struct Recheck(Mutex<Option<Instant>>);

impl Recheck {
    /// It is known as of now.
    pub(super) fn done(&self) {
        *lock(&self.0) = Some(Instant::now());
    }

    /// Whether it is time. Only the first caller is told so.
    pub(super) fn is_due(&self) -> bool {
        let mut done = lock(&self.0);
        if done.is_some_and(|done| done.elapsed() < EVERY) {
            return false;
        }
        *done = Some(Instant::now());
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_caller_is_told_now_and_then() {
        let recheck = Recheck::default();
        assert!(recheck.is_due() && !recheck.is_due());
        advance(EVERY).await;
        recheck.done();
        assert!(!recheck.is_due());
        advance(EVERY).await;
        assert!(recheck.is_due());
    }
}
