//! The reading port: list one service, watch one service.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::model::name::ServiceName;
use crate::model::snapshot::{Revision, Snapshot};

/// The names of services, and how much lies among them that is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceList {
    /// The names, sorted.
    pub services: Vec<ServiceName>,
    /// How many entries of the source are none of a service that can be listed: keys of other programs, names that would break a line.
    pub unlisted: usize,
}

impl ServiceList {
    /// Says how many entries cannot be listed.
    #[must_use]
    pub fn with_unlisted(mut self, count: usize) -> Self {
        self.unlisted = count;
        self
    }
}

impl From<Vec<ServiceName>> for ServiceList {
    fn from(services: Vec<ServiceName>) -> Self {
        let unlisted = 0;
        Self { services, unlisted }
    }
}

/// Reads services from one source: a server, a file, or other instancers.
///
/// An implementation translates one source and decides nothing: it does not retry, back off or cache. It must pass the reading
/// suite of `sd_testing`.
#[async_trait]
pub trait Instancer: Debug + Send + Sync + 'static {
    /// The names of all services that have an instance, sorted. Cancel-safe.
    ///
    /// # Errors
    /// `Unsupported` if the source cannot list services. Otherwise why it could not be read.
    async fn services(&self) -> Result<Vec<ServiceName>>;

    /// As [`services`](Self::services), with how much cannot be listed. By default that is nothing: a source with entries that are none of
    /// a service implements this, and `services` by it. Cancel-safe.
    ///
    /// # Errors
    /// As [`services`](Self::services).
    async fn list_services(&self) -> Result<ServiceList> {
        Ok(self.services().await?.into())
    }

    /// Opens a feed of the names of all services that have an instance. `None`, the default, if the source does not tell of
    /// changes by itself: core then asks for [`services`](Self::services) again and again. Cancel-safe.
    ///
    /// # Errors
    /// `Unsupported` if the source cannot list services. Otherwise why the feed could not be opened.
    async fn watch_services(&self) -> Result<Option<Box<dyn ServicesWatcher>>> {
        Ok(None)
    }

    /// Whether readers learn that an instance was withdrawn on purpose: from its entry, or because what crashed stays listed. `true` by
    /// default. Where it is `false`, instances that vanish together are not held unless
    /// [`MassLossHold::for_any_source`](crate::MassLossHold::for_any_source) asks for it.
    fn tells_withdrawals(&self) -> bool {
        true
    }

    /// Reads one service once, as fresh as the source offers. An unknown service is an empty set. Cancel-safe.
    ///
    /// # Errors
    /// Why the source could not be read. An unreadable entry is no error: it is named in [`Snapshot::skipped`].
    async fn list(&self, service: &ServiceName) -> Result<Snapshot>;

    /// Opens a feed of one service. `known` is the last good set of an earlier feed of this instancer. The new feed may resume
    /// after it, but only if the source proves that no change in between was missed. Otherwise the feed reads everything.
    /// Cancel-safe.
    ///
    /// # Errors
    /// Why the feed could not be opened. [`Outdated`](crate::ErrorKind::Outdated) if `known` is too old to resume after.
    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>>;
}

/// One feed of full sets of one service. It ends with its first error, or when it is dropped.
#[async_trait]
pub trait Watcher: Debug + Send + 'static {
    /// Waits for the next news. The first call of a feed answers as soon as the source does.
    ///
    /// # Errors
    /// Any error ends this feed but not the subscription: core opens a new feed.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped call loses nothing.
    async fn next(&mut self) -> Result<Feed>;

    /// How long `next` may stay silent this time. After a longer silence core takes the feed for dead and opens a new one.
    fn silence_limit(&self) -> Duration;
}

/// One feed of the list of services. It ends with its first error, or when it is dropped.
#[async_trait]
pub trait ServicesWatcher: Debug + Send + 'static {
    /// Waits for the next news, and returns the names of all services that have an instance, sorted. The first call of a feed
    /// answers as soon as the source does. Without a change the answer is the same list, which says that the feed is alive.
    ///
    /// # Errors
    /// Any error ends this feed but not the subscription: core opens a new feed.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped call loses nothing.
    async fn next(&mut self) -> Result<Vec<ServiceName>>;

    /// How many entries could not be listed at the last answer: [`ServiceList::unlisted`]. 0 by default.
    fn unlisted(&self) -> usize {
        0
    }

    /// How long `next` may stay silent this time. After a longer silence core takes the feed for dead and opens a new one.
    fn silence_limit(&self) -> Duration;
}

/// What a [`Watcher`] reports.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Feed {
    /// The full set.
    Set(Snapshot),
    /// The source answered and nothing changed.
    Alive {
        /// The position up to which nothing changed.
        revision: Revision,
        /// When the source said so.
        as_of: Moment,
    },
    /// The feed is alive but cannot be trusted now. Examples: a stale read, a list that access rules emptied. The last set
    /// stays.
    Degraded(Error),
    /// A full set of which a part is not confirmed now. Readers get the set, and the status says why it cannot be trusted. For
    /// sources that combine other sources, when one of those is down.
    Partial {
        /// The best known set.
        set: Snapshot,
        /// Which part is missing or stale, and why.
        error: Error,
    },
}
