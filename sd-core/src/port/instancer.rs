//! The reading port: list one service, watch one service.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::model::name::ServiceName;
use crate::model::snapshot::{Revision, Snapshot};

/// Reads services from one source: a server, a file, or other instancers.
///
/// An implementation translates one source and decides nothing: it does not retry, back off or cache. It must pass
/// `sd_testing`'s conformance suite for the reading port.
#[async_trait]
pub trait Instancer: Debug + Send + Sync + 'static {
    /// The names of all services that have an instance, sorted. Cancel-safe.
    ///
    /// # Errors
    /// `Unsupported` where the source cannot say.
    async fn services(&self) -> Result<Vec<ServiceName>>;

    /// Reads one service once, as fresh as the source offers. An unknown service is an empty set. Cancel-safe.
    ///
    /// # Errors
    /// When the source could not be read. An entry that cannot be understood is no error: it is named in
    /// [`Snapshot::skipped`].
    async fn list(&self, service: &ServiceName) -> Result<Snapshot>;

    /// Opens a feed of one service. `known` is the last good set of an earlier feed of this instancer: the new one may resume
    /// after it, but only if the source proves that nothing in between was missed. Otherwise it reads everything. Cancel-safe.
    ///
    /// # Errors
    /// When the feed could not be opened; [`Outdated`](crate::ErrorKind::Outdated) if `known` is too old to resume after.
    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>>;
}

/// One feed of full sets of one service. Ends with its first error, or when it is dropped.
#[async_trait]
pub trait Watcher: Debug + Send + 'static {
    /// Waits for the next news. The first call of a feed answers as soon as the source does.
    ///
    /// # Errors
    /// Any error ends this feed, never the subscription: core opens a new feed.
    ///
    /// # Cancel safety
    /// A call that is dropped loses nothing.
    async fn next(&mut self) -> Result<Feed>;

    /// How long `next` may stay silent before the feed must be taken for dead. Core then opens a new one.
    fn silence_limit(&self) -> Duration;
}

/// What a [`Watcher`] tells.
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
    /// The feed lives but cannot be trusted now, for instance a stale read, or a list that access rights emptied. The last
    /// set stays.
    Degraded(Error),
    /// A full set of which a part is not confirmed now: it is served, and the status says why it cannot be trusted. For sources
    /// made of sources, when one of them is down.
    Partial {
        /// The best set that is known.
        set: Snapshot,
        /// Which part is missing or stale, and why.
        error: Error,
    },
}
