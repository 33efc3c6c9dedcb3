//! Reads a feed as core does, and checks what must hold for every feed.

use std::time::Duration;

use sd_core::port::Feed;
use sd_core::{Revision, ServiceName, Snapshot, Watcher};
use tokio::time::{Instant, timeout_at};

use super::case::{Failure, ensure};

/// How long a feed may take to tell what it must tell, where reads are not late.
pub(super) const TOLD_WITHIN: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Follower {
    pub(super) watcher: Box<dyn Watcher>,
    service: ServiceName,
    latest: Option<Snapshot>,
    position: Option<Revision>,
    told_within: Duration,
}

impl Follower {
    /// Follows a feed that was opened with `known`, and tells within this time what it must tell.
    pub(super) fn new(
        service: ServiceName,
        watcher: Box<dyn Watcher>,
        known: Option<&Snapshot>,
        told_within: Duration,
    ) -> Self {
        Self {
            watcher,
            service,
            latest: known.cloned(),
            position: None,
            told_within,
        }
    }

    /// The newest set.
    pub(super) fn latest(&self) -> Option<&Snapshot> {
        self.latest.as_ref()
    }

    /// Waits for the next news.
    pub(super) async fn step(&mut self) -> Result<Feed, Failure> {
        self.step_until("the next news", Instant::now() + self.told_within)
            .await
    }

    /// Waits until the newest set is as wanted.
    pub(super) async fn until(
        &mut self,
        what: &str,
        wanted: impl Fn(&Snapshot) -> bool,
    ) -> Result<Snapshot, Failure> {
        let deadline = Instant::now() + self.told_within;
        loop {
            if let Some(latest) = self.latest.as_ref().filter(|latest| wanted(latest)) {
                return Ok(latest.clone());
            }
            self.step_until(what, deadline).await?;
        }
    }

    async fn step_until(&mut self, what: &str, deadline: Instant) -> Result<Feed, Failure> {
        match timeout_at(deadline, self.watcher.next()).await {
            Ok(Ok(feed)) => {
                self.take(&feed)?;
                Ok(feed)
            }
            Ok(Err(error)) => Err(Failure::Broken(format!(
                "the feed ended before {what}: {}",
                error.report()
            ))),
            Err(_) => Err(Failure::Broken(format!(
                "the feed did not tell {what}; the last set was {:?}",
                self.latest
            ))),
        }
    }

    /// Takes what the feed told.
    pub(super) fn take(&mut self, feed: &Feed) -> Result<(), Failure> {
        match feed {
            Feed::Set(set) | Feed::Partial { set, .. } => {
                ensure(set.service() == &self.service, || {
                    format!("a set of {} in the feed of {}", set.service(), self.service)
                })?;
                self.advance(set.revision())?;
                self.latest = Some(set.clone());
            }
            Feed::Alive { revision, .. } => {
                ensure(self.latest.is_some(), || {
                    "the feed said that nothing changed before it told a set".to_owned()
                })?;
                self.advance(revision)?;
            }
            Feed::Degraded(error) => {
                return Err(Failure::Broken(format!(
                    "the feed is degraded: {}",
                    error.report()
                )));
            }
            other => {
                return Err(Failure::Broken(format!(
                    "the feed told {other:?}, which this suite does not know"
                )));
            }
        }
        Ok(())
    }

    fn advance(&mut self, to: &Revision) -> Result<(), Failure> {
        let back = self.position.as_ref().is_some_and(|at| to < at);
        ensure(!back, || {
            format!("the revision went back from {:?} to {to:?}", self.position)
        })?;
        self.position = Some(to.clone());
        Ok(())
    }
}
