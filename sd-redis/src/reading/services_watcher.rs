//! The feed of the list of services: read all, then ask after each service of which something is told, or whose last record may have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use sd_core::port::ServicesWatcher;
use sd_core::{ErrorKind, Result, ServiceName};
use tokio::time::{Instant, sleep_until};

use crate::backend::RedisBackend;
use crate::client::Client;
use crate::client::subscriptions::Subscription;
use crate::codec::names::Layout;
use crate::reading::instancer::{read_list, rests_of};

const OP: &str = "redis: watch services";
/// How much later than its last record may have ended a service is asked after.
const SPREAD: std::ops::Range<u64> = 5..100;

/// All services, followed.
#[derive(Debug)]
pub(crate) struct RedisServicesWatcher {
    client: Arc<Client>,
    layout: Layout,
    /// `None` where we may not read the channel: then the server is only asked.
    told: Option<Subscription>,
    /// Each service, and when it is asked after next.
    services: BTreeMap<ServiceName, Instant>,
    unlisted: usize,
    /// Of which something was told.
    touched: BTreeSet<ServiceName>,
    read_at: Instant,
    has_told: bool,
}

impl RedisServicesWatcher {
    pub(crate) async fn open(backend: &RedisBackend) -> Result<Self> {
        let (client, layout) = (Arc::clone(&backend.client), backend.layout.clone());
        let subscriptions = client.subscriptions();
        let told = subscriptions
            .subscribe_if_allowed(&layout.list_channel())
            .await?;
        let mut watcher = Self {
            client,
            layout,
            told,
            services: BTreeMap::new(),
            unlisted: 0,
            touched: BTreeSet::new(),
            read_at: Instant::now(),
            has_told: false,
        };
        watcher.read_all().await?;
        Ok(watcher)
    }

    /// What cannot be asked after stays as it was known.
    async fn read_all(&mut self) -> Result<()> {
        let read = read_list(&self.client, &self.layout, OP).await?;
        self.read_at = Instant::now() + self.client.config().next_poll();
        self.unlisted = read.odd + read.unknown.len();
        let kept = read.unknown.into_iter();
        let kept = kept.filter(|service| self.services.contains_key(service));
        let kept: Vec<_> = kept.map(|service| (service, self.read_at)).collect();
        let alive = read.alive.into_iter();
        self.services = alive
            .map(|(service, rest)| (service, after(rest)))
            .collect();
        self.services.extend(kept);
        Ok(())
    }

    /// Asks after the services that may have got their first record, or lost their last one. One that cannot be asked after stays as it was
    /// known, until everything is read.
    async fn ask(&mut self) -> Result<()> {
        let now = Instant::now();
        let due = self.services.iter().filter(|(_, at)| **at <= now);
        self.touched.extend(due.map(|(service, _)| service.clone()));
        let touched = self.touched.iter().cloned().collect();
        let mut asked = rests_of(&self.client, &self.layout, OP, touched);
        let (mut has_answered, mut failed) = (false, None);
        while let Some((service, rest)) = asked.next().await {
            has_answered |= rest.is_ok();
            self.touched.remove(&service);
            match rest {
                Ok(Some(rest)) => drop(self.services.insert(service, after(rest))),
                Ok(None) => drop(self.services.remove(&service)),
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    self.services.remove(&service);
                }
                Err(error) => {
                    if let Some(at) = self.services.get_mut(&service) {
                        *at = self.read_at;
                    }
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) if !has_answered => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits until something may have changed.
    async fn wait(&mut self) -> Result<()> {
        let next = self.services.values().min().copied();
        let wake_at = next.map_or(self.read_at, |next| next.min(self.read_at));
        let Some(told) = &mut self.told else {
            sleep_until(wake_at).await;
            return Ok(());
        };
        let message = tokio::select! {
            biased;
            message = told.next() => message?,
            () = sleep_until(wake_at) => return Ok(()),
        };
        self.touched.extend(Layout::service(&message));
        while let Some(message) = told.try_next() {
            self.touched.extend(Layout::service(&message));
        }
        Ok(())
    }
}

/// When a service is asked after whose last record lives this long.
fn after(rest: Duration) -> Instant {
    Instant::now() + rest + Duration::from_millis(fastrand::u64(SPREAD))
}

#[async_trait]
impl ServicesWatcher for RedisServicesWatcher {
    async fn next(&mut self) -> Result<Vec<ServiceName>> {
        if std::mem::replace(&mut self.has_told, true) {
            if self.touched.is_empty() {
                self.wait().await?;
            }
            if Instant::now() >= self.read_at {
                self.read_all().await?;
            }
            self.ask().await?;
        }
        Ok(self.services.keys().cloned().collect())
    }

    fn unlisted(&self) -> usize {
        self.unlisted
    }

    fn silence_limit(&self) -> Duration {
        self.client.config().silence_limit()
    }
}
