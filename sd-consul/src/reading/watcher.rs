//! The feed of one service: read everything, then ask again and again, each time waiting until something may have changed.
//!
//! An answer is no proof of a change, so its content is compared with the last set. And an index may go back: then the servers are
//! asked again, without waiting, for what the agent said is not to be trusted.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::clock::{Clock, Moment};
use sd_core::port::Feed;
use sd_core::{Error, ErrorKind, Result, ServiceName, Snapshot, Watcher};
use tracing::debug;

use crate::backend::ConsulBackend;
use crate::client::Client;
use crate::client::answer::Meta;
use crate::client::blocking_queries::Waiter;
use crate::reading::rate_limiter::RateLimiter;
use crate::reading::revision_domain::RevisionDomain;
use crate::reading::service_set::ServiceSet;
use crate::reading::services::AnsweredEntries;

const OP: &str = "consul: watch service";
/// How much longer than the longest query a feed may be silent: until it is its turn, and for its rate.
pub(crate) const SLACK: Duration = Duration::from_secs(10);

/// One service, followed.
#[derive(Debug)]
pub(crate) struct ConsulWatcher {
    client: Arc<Client>,
    clock: Arc<dyn Clock>,
    revision_domain: Arc<RevisionDomain>,
    service: ServiceName,
    set: ServiceSet,
    waiter: Waiter,
    rate: RateLimiter,
    /// Where to wait from.
    index: u64,
    last: Snapshot,
    first: Option<Feed>,
}

impl ConsulWatcher {
    pub(crate) async fn open(
        backend: &ConsulBackend,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Self> {
        let client = &backend.client;
        let set = ServiceSet::new(service, client.config());
        let asked = backend.clock.now();
        let read = client.service_entries(OP, service).await?;
        let (meta, bytes) = (read.meta(), read.bytes());
        if let Some(known) = known {
            backend
                .revision_domain
                .goes_on(known.revision(), meta.index);
        }
        let at = backend.revision_domain.position(&meta, asked);
        let last = set.read(read, at, known, false).await?;
        let mut rate = RateLimiter::new();
        rate.spend(bytes);
        let mut watcher = Self {
            client: Arc::clone(client),
            clock: Arc::clone(&backend.clock),
            revision_domain: Arc::clone(&backend.revision_domain),
            service: service.clone(),
            set,
            waiter: client.waiter(),
            rate,
            index: meta.index,
            last,
            first: None,
        };
        let first = Feed::Set(watcher.last.clone());
        watcher.first = Some(watcher.unless_stale(&meta, first));
        Ok(watcher)
    }

    /// The source answered and nothing changed.
    fn alive(&mut self, meta: &Meta) -> Feed {
        let revision = self.last.revision().clone();
        let as_of = self.clock.now() - meta.staleness;
        self.last = self.last.clone().with_position(revision.clone(), as_of);
        self.unless_stale(meta, Feed::Alive { revision, as_of })
    }

    /// A set that was read now. It follows the last one without a gap if `goes_on`. Changes nothing before it is read as a whole: this may
    /// be dropped.
    async fn take(&mut self, read: AnsweredEntries, as_of: Moment, goes_on: bool) -> Result<Feed> {
        let meta = read.meta();
        let at = self.revision_domain.position(&meta, as_of);
        let (revision, as_of) = at.clone();
        let set = self.set.read(read, at, Some(&self.last), goes_on).await?;
        self.index = meta.index;
        let feed = if set.is_same_set(&self.last) {
            Feed::Alive { revision, as_of }
        } else {
            Feed::Set(set.clone())
        };
        self.last = set;
        Ok(self.unless_stale(&meta, feed))
    }

    /// Reads everything again, after an answer from before the last set. Either the servers went back, or the agent has lost its view
    /// of the service and answers with an empty one.
    async fn reread(&mut self, told: u64) -> Result<Feed> {
        debug!(from = self.index, to = told, "index went back");
        let sent = self.clock.now();
        let read = self.client.service_entries(OP, &self.service).await?;
        self.rate.spend(read.bytes());
        self.revision_domain
            .goes_on(self.last.revision(), read.meta().index);
        self.take(read, sent, false).await
    }

    /// What an answer tells, unless the server or cache that gave it has been out of touch for too long.
    fn unless_stale(&self, meta: &Meta, feed: Feed) -> Feed {
        match check_fresh(OP, &self.client, meta) {
            Ok(()) => feed,
            Err(error) => Feed::Partial {
                set: self.last.clone(),
                error,
            },
        }
    }
}

/// An error if the server or cache that gave an answer has been out of touch for too long.
pub(crate) fn check_fresh(op: &'static str, client: &Client, meta: &Meta) -> Result<()> {
    let most = client.config().max_stale;
    let why = if !meta.known_leader {
        "the server that answered knows of no leader of the cluster".to_owned()
    } else if meta.staleness > most {
        format!(
            "the answer is {:?} old, and max_stale is {most:?}",
            meta.staleness
        )
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Unavailable, op).because(why))
}

#[async_trait]
impl Watcher for ConsulWatcher {
    async fn next(&mut self) -> Result<Feed> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        self.rate.ready().await;
        let read = self
            .client
            .changed_service_entries(OP, &self.waiter, &self.service, self.index)
            .await?;
        let meta = read.meta();
        self.rate.spend(read.bytes());
        match meta.index.cmp(&self.index) {
            Ordering::Less => self.reread(meta.index).await,
            // It waited in vain. What it lists is not even looked at: it may be the empty view of an agent that is about to read it
            // again.
            Ordering::Equal => Ok(self.alive(&meta)),
            Ordering::Greater => self.take(read, self.clock.now(), true).await,
        }
    }

    fn silence_limit(&self) -> Duration {
        self.client.longest_query() + SLACK
    }
}
