//! Whether the server of a connection tells how far its watches are, and when it is asked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

/// Whether a server answers when it is asked how far its watches are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Unknown,
    Told,
    /// As etcd's proxy.
    NeverTold,
}

/// What is known of the server of one connection.
#[derive(Debug)]
pub(crate) struct ServerProgress {
    endpoint: String,
    since: Instant,
    every: Duration,
    tell_within: Duration,
    told: AtomicBool,
    never_told: AtomicBool,
}

impl ServerProgress {
    /// For a server that is asked `every` so often, and has so long to answer.
    pub(crate) fn new(endpoint: String, every: Duration, tell_within: Duration) -> Self {
        Self {
            endpoint,
            since: Instant::now(),
            every,
            tell_within,
            told: AtomicBool::new(false),
            never_told: AtomicBool::new(false),
        }
    }

    /// The next of the moments at which all who use this connection are to do what they do again and again.
    pub(crate) fn next_beat(&self, now: Instant) -> Instant {
        next_beat(self.since, now, self.every)
    }

    /// How long the server has to answer.
    pub(crate) fn tell_within(&self) -> Duration {
        self.tell_within
    }

    /// A longer silence of a watch means that the server is gone.
    pub(crate) fn silence_limit(&self) -> Duration {
        self.every * 2 + self.tell_within
    }

    /// Whether the server was seen to tell how far its watches are. Once it was, that stays.
    pub(crate) fn seen(&self) -> Progress {
        if self.told.load(Ordering::Relaxed) {
            Progress::Told
        } else if self.never_told.load(Ordering::Relaxed) {
            Progress::NeverTold
        } else {
            Progress::Unknown
        }
    }

    pub(crate) fn note_told(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    pub(crate) fn note_never_told(&self) {
        if self.seen() == Progress::Unknown {
            info!(
                endpoint = self.endpoint,
                "the server does not tell how far a watch is, as etcd's proxy: reads show that it is there"
            );
            self.never_told.store(true, Ordering::Relaxed);
        }
    }
}

fn next_beat(since: Instant, now: Instant, every: Duration) -> Instant {
    let every = every.as_nanos().max(1);
    let passed = now.saturating_duration_since(since).as_nanos();
    let left = u64::try_from(every - passed % every);
    now + Duration::from_nanos(left.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_use_a_connection_have_the_same_beats() {
        let (since, every) = (Instant::now(), Duration::from_secs(6));
        for (passed, next) in [
            (0, 6000),
            (1, 6000),
            (5999, 6000),
            (6000, 12000),
            (6001, 12000),
        ] {
            let now = since + Duration::from_millis(passed);
            let beat = next_beat(since, now, every);
            assert_eq!(beat - since, Duration::from_millis(next), "{passed}");
        }
    }
}
