//! The settings of an endpoint cache.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

use super::EndpointCache;
use super::driver::Driver;
use super::parts::{Make, Parts, Settings};
use super::set::EndpointSet;
use crate::balance::{Choice, Policy, RoundRobin, Selection};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::subscription::Subscription;
use crate::model::instance::Instance;
use crate::printable::Printable;
use crate::runtime::runtime;

/// Builds an [`EndpointCache`].
#[must_use]
pub struct EndpointCacheBuilder<T>(Parts<T>);

impl<T: Send + Sync + 'static> EndpointCacheBuilder<T> {
    pub(super) fn new<F, E>(
        subscription: Subscription,
        make: impl Fn(Arc<Instance>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        let make: Make<T> = Arc::new(move |instance| {
            let making = make(instance);
            Box::pin(async move {
                making.await.map_err(|error| {
                    Error::new(ErrorKind::Unavailable, "make endpoint").with_source(error)
                })
            })
        });
        Self(Parts {
            subscription,
            make,
            close: None,
            settings: Settings {
                made_at_once: 16,
                make_within: Duration::from_secs(10),
                retry_first: Duration::from_millis(200),
                retry_cap: Duration::from_secs(10),
                drain: Duration::from_secs(30),
                close_within: Duration::from_secs(5),
                invalidate_after: None,
            },
            selection: Selection::default(),
            policy: Arc::new(RoundRobin::new()),
        })
    }

    /// Sets how a value is closed after it has left the set. Called once for each value that was made. By default a value is
    /// dropped with its last holder.
    pub fn closer<F>(mut self, close: impl Fn(Arc<T>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.close = Some(Arc::new(move |value| Box::pin(close(value))));
        self
    }

    /// Sets how many values are made at the same time, at least 1. Default 16.
    pub fn made_at_once(mut self, limit: usize) -> Self {
        self.0.settings.made_at_once = limit.max(1);
        self
    }

    /// Sets how long it may take to make one value. Default 10 s.
    pub fn make_within(mut self, limit: Duration) -> Self {
        self.0.settings.make_within = limit;
        self
    }

    /// Sets the delays between attempts to make a value: up to `first`, doubling up to `cap`, with full jitter. Default 200 ms
    /// and 10 s.
    pub fn retry(mut self, first: Duration, cap: Duration) -> Self {
        self.0.settings.retry_first = first;
        self.0.settings.retry_cap = cap;
        self
    }

    /// Sets how long after leaving the set a value is closed. Default 30 s.
    pub fn drain(mut self, drain: Duration) -> Self {
        self.0.settings.drain = drain;
        self
    }

    /// Sets how long closing one value may take, also when the cache is closed. Default 5 s.
    pub fn close_within(mut self, limit: Duration) -> Self {
        self.0.settings.close_within = limit;
        self
    }

    /// Empties the set once its source has failed for this long, until the source recovers. By default the last set is served
    /// however old it is.
    pub fn invalidate_after(mut self, limit: Duration) -> Self {
        self.0.settings.invalidate_after = Some(limit);
        self
    }

    /// Sets which instances get a value, and which of them are preferred. Default all.
    pub fn selection(mut self, selection: Selection) -> Self {
        self.0.selection = selection;
        self
    }

    /// Sets what picks an endpoint for each call. Default [`RoundRobin`].
    pub fn policy(mut self, policy: impl Policy) -> Self {
        self.0.policy = Arc::new(policy);
        self
    }

    /// Starts the cache without waiting for any value.
    ///
    /// # Errors
    /// `InvalidInput` outside a tokio runtime.
    pub fn build(self) -> Result<EndpointCache<T>> {
        let runtime = runtime("endpoint cache")?;
        let empty = EndpointSet::new(Vec::new(), Vec::new(), Choice::default());
        let sets = Arc::new(ArcSwap::from_pointee(empty));
        let (told, news) = watch::channel(());
        let stop = CancellationToken::new();
        let subscription = self.0.subscription.clone();
        let service = Printable(subscription.service().as_str());
        let span = info_span!("endpoints", %service);
        let driver = Driver::new(self.0, Arc::clone(&sets), told, stop.clone());
        runtime.spawn(driver.run().instrument(span));
        Ok(EndpointCache {
            sets,
            news,
            subscription,
            stop: stop.clone(),
            _stop_on_drop: stop.drop_guard(),
        })
    }
}

impl<T> fmt::Debug for EndpointCacheBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointCacheBuilder")
            .field("service", self.0.subscription.service())
            .field("settings", &self.0.settings)
            .field("selection", &self.0.selection)
            .field("policy", &self.0.policy)
            .finish_non_exhaustive()
    }
}
