//! The task behind a subscription: opens a feed, publishes what it tells, and opens the next one when it ends. Errors become
//! status, never data.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::error::{Error, ErrorKind, Result};
use crate::feed::config::SubscriptionConfig;
use crate::feed::publisher::Publisher;
use crate::feed::refresh::{Refresher, SHORTEST_REREAD};
use crate::instrument;
use crate::model::name::ServiceName;
use crate::model::snapshot::{Revision, Snapshot};
use crate::panics::panicked;
use crate::port::instancer::{Feed, Instancer, Watcher};
use crate::retry::{FeedRetry, NextFeed, Retry, jittered, later};
use crate::runtime::until;

const OP: &str = "subscription";

/// The task behind a subscription.
#[derive(Debug)]
pub(crate) struct Driver {
    instancer: Arc<dyn Instancer>,
    service: ServiceName,
    config: SubscriptionConfig,
    publisher: Publisher,
    stop: CancellationToken,
    /// The last good set as the source gave it, to resume after.
    last: Option<Snapshot>,
}

/// The subscription is to end.
struct Stopped;

/// A feed on its way.
type Opening = Pin<Box<dyn Future<Output = Result<Box<dyn Watcher>>> + Send>>;

/// What can happen while a feed is followed.
enum Event {
    Told(Result<Feed>),
    RereadDue,
    Opened(Result<Box<dyn Watcher>>),
    Silent,
}

impl Driver {
    /// Follows `service` at `instancer` until `stop`.
    pub(crate) fn new(
        instancer: Arc<dyn Instancer>,
        service: ServiceName,
        config: SubscriptionConfig,
        publisher: Publisher,
        stop: CancellationToken,
    ) -> Self {
        Self {
            instancer,
            service,
            config,
            publisher,
            stop,
            last: None,
        }
    }

    pub(crate) async fn run(mut self, mut refresher: Refresher) {
        // Ends with `Stopped`, there is nothing else to tell.
        let _ = self.drive(&mut refresher).await;
        debug!("subscription ended");
    }

    async fn drive(&mut self, refresher: &mut Refresher) -> Result<(), Stopped> {
        let config = &self.config;
        let mut retry = FeedRetry::new(
            config.backoff_first,
            config.backoff_cap,
            config.stable_after,
        );
        loop {
            let opened_at = Instant::now();
            // A panic of a source, or of a rule that a user has given it, ends this feed alone.
            let feed = AssertUnwindSafe(self.feed(refresher)).catch_unwind().await;
            let error = match feed {
                Ok(ended) => ended?,
                Err(panic) => {
                    // What it has told may have been half taken.
                    self.last = None;
                    panicked("feed", panic.as_ref())
                }
            };
            instrument::feed_error(&self.service);
            self.publisher.trouble(&error);
            refresher.end(Some(&error));
            let delay = match retry.next(opened_at.elapsed(), &error) {
                NextFeed::Resume(delay) => Some(delay),
                NextFeed::ReadAll(delay) => {
                    self.last = None;
                    Some(delay)
                }
                // The status says why; only dropping the handles ends the subscription.
                NextFeed::Never => None,
            };
            self.pause(delay, &error, refresher).await?;
        }
    }

    /// Opens a feed and follows it to its end. Returns why it ended.
    async fn feed(&mut self, refresher: &mut Refresher) -> Result<Error, Stopped> {
        let rereads = refresher.begin();
        let known = self.last.clone().filter(|_| !rereads);
        let opening = self.open(known);
        match self.attend(opening).await? {
            Ok(watcher) => self.follow(watcher, refresher).await,
            Err(error) => Ok(error),
        }
    }

    /// Waits before the next feed is opened, for ever if there is no delay after which one may be. A reader that wants
    /// everything to be read now shortens the wait, unless the same request is not to be repeated so soon: then it is told why.
    async fn pause(
        &mut self,
        delay: Option<Duration>,
        error: &Error,
        refresher: &mut Refresher,
    ) -> Result<(), Stopped> {
        let next_at = delay.map(|delay| later(Instant::now(), delay));
        let may_hurry = matches!(error.kind().retry(), Retry::Backoff | Retry::Resync);
        self.attend(async {
            loop {
                tokio::select! {
                    () = until(next_at) => return,
                    () = refresher.wanted() => {
                        if may_hurry {
                            return;
                        }
                        refresher.begin();
                        refresher.end(Some(error));
                    }
                }
            }
        })
        .await
    }

    fn open(&self, known: Option<Snapshot>) -> Opening {
        let (instancer, service) = (Arc::clone(&self.instancer), self.service.clone());
        let limit = self.config.open_timeout;
        Box::pin(async move {
            match timeout(limit, instancer.watch(&service, known.as_ref())).await {
                Ok(opened) => opened,
                Err(_) => Err(Error::new(ErrorKind::Timeout, "open feed")
                    .because(format!("no answer within {limit:?}"))),
            }
        })
    }

    /// Publishes what a feed tells until it ends. Replaces it now and then by one that reads everything again, and follows the
    /// old one until the new one is open.
    async fn follow(
        &mut self,
        mut watcher: Box<dyn Watcher>,
        refresher: &mut Refresher,
    ) -> Result<Error, Stopped> {
        let mut reread_at = self.next_reread();
        let mut fresh: Option<Opening> = None;
        // How far the old feed got while the new one was being opened, which may have read before that.
        let mut passed: Option<Revision> = None;
        let mut limit = watcher.silence_limit();
        let mut silent_at = later(Instant::now(), limit);
        // Whether the feed has yet to tell what it has read.
        let mut is_new = true;
        loop {
            let event = self.attend(async {
                tokio::select! {
                    // What the old feed has told already comes before the new one.
                    biased;
                    told = watcher.next() => Event::Told(told),
                    opened = opened(&mut fresh) => Event::Opened(opened),
                    () = until(reread_at) => Event::RereadDue,
                    () = refresher.wanted(), if fresh.is_none() => Event::RereadDue,
                    () = sleep_until(silent_at) => Event::Silent,
                }
            });
            match event.await? {
                Event::Told(Ok(feed)) => {
                    limit = watcher.silence_limit();
                    silent_at = later(Instant::now(), limit);
                    if fresh.is_some() {
                        passed = set_of(&feed).map(|set| set.revision().clone()).or(passed);
                    } else if is_before(&feed, passed.as_ref()) {
                        debug!("new feed is not yet as far as the old one was");
                        continue;
                    } else {
                        passed = None;
                    }
                    let error = match &feed {
                        Feed::Degraded(error) => Some(error.clone()),
                        _ => None,
                    };
                    self.take(feed);
                    // While the next one is being opened, it is that one which answers.
                    if fresh.is_none() && std::mem::take(&mut is_new) {
                        self.publisher.flush();
                        refresher.end(error.as_ref());
                    }
                }
                Event::Told(Err(error)) => return Ok(error),
                Event::Opened(opened) => {
                    (fresh, reread_at) = (None, self.next_reread());
                    match opened {
                        Ok(opened) => {
                            watcher = opened;
                            is_new = true;
                            limit = watcher.silence_limit();
                            silent_at = later(Instant::now(), limit);
                        }
                        Err(error) => {
                            passed = None;
                            refresher.end(Some(&error));
                            debug!(error = %error.report(), "could not read everything again");
                        }
                    }
                }
                Event::RereadDue => {
                    refresher.begin();
                    (fresh, reread_at) = (Some(self.open(None)), None);
                    passed = None;
                }
                Event::Silent => {
                    return Ok(Error::new(ErrorKind::Timeout, "feed")
                        .because(format!("silent for {limit:?}")));
                }
            }
        }
    }

    fn next_reread(&self) -> Option<Instant> {
        self.config.anti_entropy.map(|every| {
            let every = every.max(SHORTEST_REREAD);
            later(Instant::now(), jittered(every, 0.2))
        })
    }

    fn take(&mut self, feed: Feed) {
        match feed {
            Feed::Set(snapshot) => {
                self.publisher.set(&snapshot);
                self.last = Some(snapshot);
            }
            Feed::Alive { revision, as_of } => {
                if let Some(last) = self.last.take() {
                    self.publisher.alive(&revision, as_of);
                    self.last = Some(last.with_position(revision, as_of));
                } else {
                    debug!("feed is alive but has told no set yet");
                }
            }
            Feed::Degraded(error) => self.publisher.trouble(&error),
            Feed::Partial { set, error } => {
                self.publisher.partial_set(&set, &error);
                self.last = Some(set);
            }
        }
    }

    /// Waits for `work` while the publisher's timers go on.
    async fn attend<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        tokio::pin!(work);
        loop {
            let due = self.publisher.due();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Stopped),
                () = until(due) => self.publisher.on_timer(),
                done = &mut work => return Ok(done),
            }
        }
    }
}

/// Whatever ends the task, readers see that nothing is followed any more. Their next wait ends with `Closed`.
impl Drop for Driver {
    fn drop(&mut self) {
        self.publisher.end(&ended(OP, &self.stop));
    }
}

/// Why a task that follows a source has ended, as far as it was to.
pub(super) fn ended(op: &'static str, stop: &CancellationToken) -> Error {
    Error::new(ErrorKind::Closed, op).because(if stop.is_cancelled() {
        "the registry was closed"
    } else {
        "the runtime that followed the source has ended: subscribe again on one that runs"
    })
}

/// Returns the feed when it is open; never if none is on its way.
async fn opened(fresh: &mut Option<Opening>) -> Result<Box<dyn Watcher>> {
    match fresh {
        Some(opening) => opening.await,
        None => std::future::pending().await,
    }
}

fn set_of(feed: &Feed) -> Option<&Snapshot> {
    match feed {
        Feed::Set(set) | Feed::Partial { set, .. } => Some(set),
        Feed::Alive { .. } | Feed::Degraded(_) => None,
    }
}

fn is_before(feed: &Feed, passed: Option<&Revision>) -> bool {
    let position = match feed {
        Feed::Alive { revision, .. } => Some(revision),
        feed => set_of(feed).map(Snapshot::revision),
    };
    position
        .zip(passed)
        .is_some_and(|(position, passed)| position < passed)
}
