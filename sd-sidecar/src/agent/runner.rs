//! Registers what is wanted whenever a connection to the agent begins, and again until the agent accepts it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::OptionFuture;
use sd_core::retry::Backoff;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::controller::Controller;
use super::error::{AgentError, Result};
use super::error_thread::Errors;
use super::event::{ConnectionEvent, EventKind};
use super::parts::{ErrorHandler, EventSource};

/// Between attempts to register, at random up to this after the first failure, and at most up to the other.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What is under way at the end has this time, more than any request takes by default.
const LAST_REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// Has a [`Controller`] do what the events of a source ask for.
pub struct Runner {
    source: Arc<dyn EventSource>,
    controller: Arc<Controller>,
    on_error: Option<ErrorHandler>,
}

type Replay = Pin<Box<dyn Future<Output = Vec<AgentError>> + Send>>;

impl Runner {
    /// Nothing runs yet. `on_error` hears of what goes wrong.
    pub fn new(
        source: Arc<dyn EventSource>,
        controller: Arc<Controller>,
        on_error: Option<ErrorHandler>,
    ) -> Self {
        Self {
            source,
            controller,
            on_error,
        }
    }

    /// Runs until `stop` is cancelled or the source has ended.
    ///
    /// # Errors
    /// Why the source cannot be watched.
    ///
    /// # Cancel safety
    /// After a dropped call a registration that was under way may still be done. Cancel `stop` instead: that waits for its answer.
    pub async fn run(&self, stop: &CancellationToken) -> Result<()> {
        let errors = Errors::new(self.on_error.clone());
        self.run_telling(&errors, stop).await
    }

    /// As [`run`](Self::run), and tells `errors` instead of the handler.
    pub(crate) async fn run_telling(
        &self,
        errors: &Errors,
        stop: &CancellationToken,
    ) -> Result<()> {
        let mut events = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            events = self.source.subscribe() => events?,
        };
        let mut wishes = self.controller.wishes();
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut replay: Option<Replay> = None;
        let mut retry_at: Option<Instant> = None;
        loop {
            if replay.is_none() && retry_at.is_none() && self.controller.has_work() {
                let controller = Arc::clone(&self.controller);
                replay = Some(Box::pin(async move { controller.replay().await }));
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Some(failures) = OptionFuture::from(replay.as_mut()) => {
                    replay = None;
                    if failures.is_empty() {
                        backoff.reset();
                    } else {
                        retry_at = Some(Instant::now() + backoff.next_delay());
                    }
                    for error in failures {
                        errors.tell(error);
                    }
                }
                Some(()) = OptionFuture::from(retry_at.map(sleep_until)) => retry_at = None,
                Ok(()) = wishes.changed() => retry_at = None,
                event = events.next() => {
                    let Some(event) = event else { break };
                    if self.observe(&event) {
                        retry_at = None;
                    }
                    if let Some(error) = event.error {
                        self.controller.record_error(&error);
                        errors.tell((*error).clone());
                    }
                }
            }
        }
        // Nothing further is asked for.
        self.controller.end_connection();
        if let Some(replay) = replay {
            // Its answer says whether there is something to take out.
            let _ = timeout(LAST_REQUEST_WITHIN, replay).await;
        }
        Ok(())
    }

    /// Whether it is time to register.
    fn observe(&self, event: &ConnectionEvent) -> bool {
        self.controller.observe_event(event);
        match event.kind {
            EventKind::Connected | EventKind::Resync => {
                self.controller.begin();
                true
            }
            EventKind::Disconnected => {
                self.controller.on_disconnected();
                false
            }
            EventKind::Heartbeat | EventKind::Degraded | EventKind::Missed(_) => false,
        }
    }
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner")
            .field("controller", &self.controller)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
