//! Who leads, for processes that are no candidates.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use sd_core::clock::{Clock, Moment};
use sd_core::panics::caught;
use sd_core::port::{Closing, Leader, LeaderFeed, LeaderWatcher};
use sd_core::retry::{FeedRetry, NextFeed};
use sd_core::{ElectionName, Elector, Error, ErrorKind, FencingToken, Registry, Result, Status};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use crate::cancellation::cancelled;
use crate::flaw::{Flaw, flawed};

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// A feed that lived this long was good, and the next one is opened soon.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// How long the opening of a feed may take.
const OPEN_LIMIT: Duration = Duration::from_secs(15);

/// What an observer knows about an election's leader.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LeaderView {
    /// The leader that the registry reported last; `None` if there is no leader, or nothing is known yet.
    pub leader: Option<Leader>,
    /// Whether that is current. It is stale while the registry has errors, and after the registry was closed. An error never replaces the
    /// last known leader.
    pub status: Status,
    /// As of when it is known, on the registry's clock.
    pub as_of: Moment,
    /// How often the registry's history was replaced while we observed it: the registry was restored from a backup, or another one
    /// answers. Tokens only grow while this number stays the same.
    pub lineage: u32,
}

impl LeaderView {
    /// Whether anything was read yet.
    pub fn is_known(&self) -> bool {
        !matches!(self.status, Status::Initializing { .. })
    }

    /// The latest view in which `leader` leads.
    fn told(&self, leader: Option<Leader>, last: Option<&FencingToken>, as_of: Moment) -> Self {
        let went_back = match (&leader, last) {
            (Some(leader), Some(last)) => {
                leader.token.partial_cmp(last).is_none_or(Ordering::is_lt)
            }
            _ => false,
        };
        Self {
            leader,
            status: Status::Live,
            as_of,
            lineage: self.lineage + u32::from(went_back),
        }
    }
}

/// Observes an election without taking part. A slow reader skips to the latest view and delays nothing. Ends when it is dropped.
#[derive(Debug)]
pub struct Observer {
    name: ElectionName,
    views: watch::Receiver<LeaderView>,
    _end_on_drop: DropGuard,
}

impl Observer {
    /// Observes the election `name`. Does not wait for the server. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// `InvalidInput` for a bad name, or outside a runtime; `Unsupported` if the registry has no elections; `Closed` if it was closed.
    pub fn new(
        registry: &Registry,
        name: impl TryInto<ElectionName, Error: Into<Error>>,
    ) -> Result<Self> {
        let name = name.try_into().map_err(Into::into)?;
        let runtime = inside_a_runtime()?;
        let elector = registry.elector()?.into_any();
        let clock = Arc::clone(&registry.config().clock);
        let (observer, task) = Self::prepare(elector, clock, name, Some(registry.closing()));
        // Ends with the observer or the registry.
        drop(runtime.spawn(task));
        Ok(observer)
    }

    /// An observer, and the task behind it.
    pub(crate) fn prepare(
        elector: Arc<dyn Elector>,
        clock: Arc<dyn Clock>,
        name: ElectionName,
        closing: Option<Closing>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let since = clock.now();
        let (views, views_seen) = watch::channel(LeaderView {
            leader: None,
            status: Status::Initializing { since, error: None },
            as_of: since,
            lineage: 0,
        });
        let end = CancellationToken::new();
        let follower = Follower {
            elector,
            clock,
            name: name.clone(),
            views,
            last: None,
        };
        let ended = end.clone();
        let task = async move {
            tokio::select! {
                biased;
                () = cancelled(&ended, closing.as_ref()) => {}
                () = follower.run() => {}
            }
        };
        let observer = Self {
            name,
            views: views_seen,
            _end_on_drop: end.drop_guard(),
        };
        (observer, task)
    }

    /// The election's name.
    pub fn name(&self) -> &ElectionName {
        &self.name
    }

    /// The latest view.
    pub fn view(&self) -> LeaderView {
        self.views.borrow().clone()
    }

    /// Waits for a view that this method has not returned yet, and returns the latest one.
    ///
    /// # Errors
    /// `Closed` after the registry was closed.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing.
    pub async fn changed(&mut self) -> Result<LeaderView> {
        self.views.changed().await.map_err(|_| closed())?;
        Ok(self.views.borrow_and_update().clone())
    }

    /// Waits until it is known who leads, or that there is no leader. Waits at most `limit`.
    ///
    /// # Errors
    /// `Timeout` with the reason why nothing was read; `Closed` after the registry was closed; `InvalidInput` outside a tokio runtime.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing.
    pub async fn wait_until_known(&self, limit: Duration) -> Result<LeaderView> {
        inside_a_runtime()?;
        let mut views = self.views.clone();
        match timeout(limit, views.wait_for(LeaderView::is_known)).await {
            Ok(Ok(view)) => Ok(view.clone()),
            Ok(Err(_)) => Err(closed()),
            Err(_) => {
                let error = Error::new(ErrorKind::Timeout, "observe");
                Err(match self.view().status.error() {
                    Some(reason) => error.with_source(reason.clone()),
                    None => error.because(format!("the registry did not answer within {limit:?}")),
                })
            }
        }
    }
}

fn inside_a_runtime() -> Result<Handle> {
    Handle::try_current()
        .map_err(|_| Error::invalid_input("observe", "call it inside a tokio runtime"))
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "observe")
        .because("the registry was closed, or the runtime that observed has ended")
}

/// Keeps the view true: opens feeds one after another.
struct Follower {
    elector: Arc<dyn Elector>,
    clock: Arc<dyn Clock>,
    name: ElectionName,
    views: watch::Sender<LeaderView>,
    /// The last token that was told.
    last: Option<FencingToken>,
}

/// A view that is no longer updated is stale.
impl Drop for Follower {
    fn drop(&mut self) {
        self.doubt(closed());
    }
}

impl Follower {
    async fn run(mut self) {
        let mut retry = FeedRetry::new(FIRST_DELAY, LONGEST_DELAY, STABLE_AFTER);
        loop {
            let (error, lived) = match self
                .within(OPEN_LIMIT, self.elector.observe(&self.name))
                .await
            {
                Ok(watcher) => self.follow(watcher).await,
                Err(error) => (error, Duration::ZERO),
            };
            debug!(name = %self.name, error = %error.report(), "feed of leaders ended");
            // A feed of leaders has no position: each one reads everything.
            let (NextFeed::Resume(delay) | NextFeed::ReadAll(delay)) = retry.next(lived, &error)
            else {
                return;
            };
            if flawed(Flaw::ObserverGivesUp) {
                return;
            }
            self.doubt(error);
            self.clock.sleep_until(self.clock.now() + delay).await;
        }
    }

    /// Follows one feed to its end. Returns why it ended, and how long it lived until its last answer: a feed that falls silent was
    /// no longer alive.
    async fn follow(&mut self, mut watcher: Box<dyn LeaderWatcher>) -> (Error, Duration) {
        let limit = watcher.silence_limit();
        let opened = self.clock.now();
        let mut lived = Duration::ZERO;
        loop {
            match self.within(limit, watcher.next()).await {
                Ok(LeaderFeed::Leader { leader, as_of }) => self.told(leader, as_of),
                Ok(LeaderFeed::Alive { as_of }) => self.confirmed(as_of),
                // Nothing that we know.
                Ok(_) => {}
                Err(error) => return (error, lived),
            }
            lived = self.clock.now().since(opened);
        }
    }

    async fn within<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            answer = caught("observe", answer) => answer,
            () = self.clock.sleep_until(self.clock.now() + limit) => {
                Err(Error::new(ErrorKind::Timeout, "observe").because(format!("silent for {limit:?}")))
            }
        }
    }

    fn told(&mut self, leader: Option<Leader>, as_of: Moment) {
        let before = self.views.borrow().clone();
        let view = before.told(leader, self.last.as_ref(), as_of);
        if view.lineage != before.lineage {
            warn!(name = %self.name, token = ?view.leader, "the registry's history was replaced: tokens restart");
        }
        if let Some(leader) = &view.leader {
            self.last = Some(leader.token.clone());
        }
        let news = view.leader != before.leader || !matches!(before.status, Status::Live);
        self.views.send_if_modified(|held| {
            *held = view;
            news
        });
    }

    fn confirmed(&self, as_of: Moment) {
        self.views.send_if_modified(|view| {
            view.as_of = as_of;
            false
        });
    }

    fn doubt(&self, error: Error) {
        let now = self.clock.now();
        self.views.send_modify(|view| {
            view.status = match &view.status {
                Status::Initializing { since, .. } => Status::Initializing {
                    since: *since,
                    error: Some(error),
                },
                Status::Stale { since, .. } => Status::Stale {
                    since: *since,
                    error,
                },
                _ => Status::Stale { since: now, error },
            };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(domain: &str, token: u64) -> Leader {
        Leader::new(None, b"a".as_slice(), FencingToken::new(domain, token))
    }

    #[test]
    fn a_token_that_goes_back_or_is_of_another_history_begins_a_new_lineage() {
        let mut view = LeaderView {
            leader: None,
            status: Status::Live,
            as_of: Moment::ZERO,
            lineage: 0,
        };
        let mut last = None;
        for (domain, token, lineage) in [
            ("a", 5, 0),
            ("a", 5, 0),
            ("a", 7, 0),
            ("a", 6, 1),
            ("b", 9, 2),
            ("b", 10, 2),
        ] {
            view = view.told(Some(leader(domain, token)), last.as_ref(), Moment::ZERO);
            assert_eq!(view.lineage, lineage, "{domain} {token}");
            last = view.leader.as_ref().map(|leader| leader.token.clone());
            // Having no leader in between changes nothing.
            view = view.told(None, last.as_ref(), Moment::ZERO);
            assert_eq!(view.lineage, lineage);
        }
    }
}
