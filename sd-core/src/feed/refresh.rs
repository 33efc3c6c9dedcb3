//! Requests to read everything again now. However many there are, reads follow each other at a bounded rate.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::error::{Error, ErrorKind, Result};

/// Reading everything more often than this would be polling.
pub(crate) const SHORTEST_REREAD: Duration = Duration::from_secs(1);

/// Where readers ask.
#[derive(Debug)]
pub(crate) struct Requests {
    /// How many there were.
    asked: watch::Sender<u64>,
    answered: watch::Receiver<Answered>,
}

/// Where the task that reads hears of it.
#[derive(Debug)]
pub(crate) struct Refresher {
    asked: watch::Receiver<u64>,
    answered: watch::Sender<Answered>,
    /// How many requests there were when the last read began.
    begun: u64,
    /// When the next read may begin for a request.
    next_at: Instant,
}

/// How many requests have been answered, and how the last read ended.
#[derive(Clone, Debug, Default)]
struct Answered {
    requests: u64,
    error: Option<Error>,
}

/// Both ends.
pub(crate) fn channel() -> (Requests, Refresher) {
    let (asked, seen) = watch::channel(0);
    let (answered, answers) = watch::channel(Answered::default());
    let requests = Requests {
        asked,
        answered: answers,
    };
    let refresher = Refresher {
        asked: seen,
        answered,
        begun: 0,
        next_at: Instant::now(),
    };
    (requests, refresher)
}

impl Requests {
    /// Returns when a read that began after this call has been published.
    pub(crate) async fn ask(&self, op: &'static str) -> Result<()> {
        let mut answered = self.answered.clone();
        let mut mine = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            mine = *asked;
        });
        match answered.wait_for(|done| done.requests >= mine).await {
            Ok(done) => done.error.clone().map_or(Ok(()), Err),
            Err(_) => Err(Error::new(ErrorKind::Closed, op)),
        }
    }
}

impl Refresher {
    /// Returns when a read is wanted that has not begun, and may begin. Cancel-safe.
    pub(crate) async fn wanted(&mut self) {
        let begun = self.begun;
        if self.asked.wait_for(|asked| *asked > begun).await.is_err() {
            // No reader is left.
            return std::future::pending().await;
        }
        sleep_until(self.next_at).await;
    }

    /// A read begins. It answers all requests so far. Returns whether there are any.
    pub(crate) fn begin(&mut self) -> bool {
        self.begun = *self.asked.borrow();
        self.next_at = Instant::now() + SHORTEST_REREAD;
        self.begun > self.answered.borrow().requests
    }

    /// The read that began last has ended.
    pub(crate) fn end(&mut self, error: Option<&Error>) {
        let begun = self.begun;
        self.answered.send_if_modified(|answered| {
            let is_news = begun > answered.requests;
            if is_news {
                *answered = Answered {
                    requests: begun,
                    error: error.cloned(),
                };
            }
            is_news
        });
    }
}
