//! The steps of an end in order. None is left out because another failed.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::OptionFuture;
use sd_core::retry::Backoff;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::config::{AgentConfig, RunConfig};
use super::controller::Controller;
use super::error::{AgentError, AgentRunError, Result, Stage};

/// Between attempts to deregister.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Exit<'a> {
    controller: &'a Controller,
    config: &'a AgentConfig,
    grace: Option<Duration>,
    run: &'a Mutex<RunConfig>,
    failures: Vec<(Stage, AgentError)>,
}

impl<'a> Exit<'a> {
    pub(crate) fn new(
        controller: &'a Controller,
        config: &'a AgentConfig,
        grace: Option<Duration>,
        run: &'a Mutex<RunConfig>,
        failures: Vec<(Stage, AgentError)>,
    ) -> Self {
        Self {
            controller,
            config,
            grace,
            run,
            failures,
        }
    }

    pub(crate) fn outcome(self) -> std::result::Result<(), AgentRunError> {
        AgentRunError::check(self.failures)
    }

    pub(crate) fn note(&mut self, stage: Stage, done: std::result::Result<(), Vec<AgentError>>) {
        let failures = done.err().into_iter().flatten();
        self.failures.extend(failures.map(|error| (stage, error)));
    }

    /// Only what an agent may have is drained, and nothing else is registered from now on.
    pub(crate) async fn drain(&mut self) {
        self.controller.forget_unknown();
        let Some(grace) = self.grace else { return };
        let within = self.config.deregister_within;
        let drained = timeout(within, self.controller.drain_known(grace)).await;
        self.note(Stage::AgentShutdown, in_time(drained, "draining", within));
    }

    /// Waits until no call is under way, or the work has ended, and for the grace period at most. Where no agent knows of the process, no
    /// calls come.
    pub(crate) async fn wait_for_calls(&mut self, serving: Option<&mut Serving>) {
        let Some(grace) = self.grace.filter(|_| self.controller.is_known()) else {
            return;
        };
        let idle = self.take(|run| run.idle.take());
        let failures = &mut self.failures;
        let idle = async {
            // On a task of its own, so that a panic is an error like others. It says nothing of calls.
            let ended = OptionFuture::from(idle.map(Serving::spawn)).await;
            match ended {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    failures.push((Stage::Shutdown, error));
                    pending::<()>().await;
                }
                None => pending::<()>().await,
            }
        };
        let has_ended = async {
            match serving {
                Some(serving) => serving.has_ended().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = idle => {}
            () = has_ended => {}
            () = sleep(grace) => {}
        }
    }

    /// Ends the process's own work.
    pub(crate) async fn end_work(&mut self, serving: Option<Serving>) {
        let within = self.config.shutdown_within;
        let shutdown = self.take(|run| run.shutdown.take());
        let shutdown = shutdown.map(|shutdown| Serving::spawn(async move { shutdown().await }));
        let (shutdown, served) = tokio::join!(
            ended_within(shutdown, "the process's shutdown", within),
            ended_within(serving, "the process's work", within),
        );
        let failures = [(Stage::Shutdown, shutdown), (Stage::Serve, served)];
        let failures = failures.into_iter();
        self.failures
            .extend(failures.filter_map(|(stage, ended)| Some((stage, ended.err()?))));
    }

    /// Tries until it is done or its time is over.
    pub(crate) async fn deregister(&mut self) {
        let within = self.config.deregister_within;
        let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut last = None;
        let trying = async {
            while let Err(failures) = self.controller.deregister_known().await {
                last = Some(failures);
                sleep(pauses.next_delay()).await;
            }
        };
        let done = match timeout(within, trying).await {
            Ok(()) => Ok(()),
            Err(_) => Err(last.unwrap_or_else(|| vec![timed_out("deregistering", within)])),
        };
        self.note(Stage::AgentShutdown, done);
    }

    fn take<T>(&self, what: impl FnOnce(&mut RunConfig) -> T) -> T {
        what(&mut self.run.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn in_time(
    done: std::result::Result<
        std::result::Result<(), Vec<AgentError>>,
        tokio::time::error::Elapsed,
    >,
    what: &str,
    within: Duration,
) -> std::result::Result<(), Vec<AgentError>> {
    done.unwrap_or_else(|_| Err(vec![timed_out(what, within)]))
}

async fn ended_within(work: Option<Serving>, what: &str, within: Duration) -> Result<()> {
    let Some(work) = work else { return Ok(()) };
    let ended = timeout(within, work).await;
    ended.unwrap_or_else(|_| Err(timed_out(what, within)))
}

fn timed_out(what: &str, after: Duration) -> AgentError {
    AgentError::TimedOut {
        what: what.to_owned(),
        after,
    }
}

/// Work of the process on a task of its own. It ends when this is dropped.
pub(crate) struct Serving {
    task: JoinHandle<Result<()>>,
    /// How it ended, if that is known and was not asked for yet.
    outcome: Option<Result<()>>,
}

impl Serving {
    pub(crate) fn spawn(work: impl Future<Output = Result<()>> + Send + 'static) -> Self {
        Self {
            task: tokio::spawn(work),
            outcome: None,
        }
    }

    /// Waits for its end, and leaves its outcome.
    async fn has_ended(&mut self) {
        let outcome = (&mut *self).await;
        self.outcome = Some(outcome);
    }
}

impl Future for Serving {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.outcome.take() {
            return Poll::Ready(outcome);
        }
        let ended = ready!(Pin::new(&mut self.task).poll(cx));
        Poll::Ready(ended.unwrap_or_else(|error| Err(AgentError::own(error))))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}
