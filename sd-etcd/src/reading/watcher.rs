//! The feed of one service: watch from now on, read everything, then apply what the watch tells.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::clock::Clock;
use sd_core::port::Feed;
use sd_core::{Result, ServiceName, Snapshot, Watcher};

use crate::backend::EtcdBackend;
use crate::client::change_feed::ChangeFeed;
use crate::reading::full_read::read_service;
use crate::reading::service_set::{ServiceSet, revision};

const OP: &str = "etcd: watch service";

/// One service, followed.
#[derive(Debug)]
pub(crate) struct EtcdWatcher {
    clock: Arc<dyn Clock>,
    feed: ChangeFeed,
    set: ServiceSet,
    first: Option<Snapshot>,
}

impl EtcdWatcher {
    pub(crate) async fn open(
        backend: &EtcdBackend,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Self> {
        let client = &backend.client;
        let (from, to) = backend.layout.service(service);
        let mut feed = ChangeFeed::open(client, OP, (&from, &to)).await?;
        let as_of = backend.clock.now();
        let (mut set, position) = read_service(client, &backend.layout, OP, service, known).await?;
        feed.skip_to(position)?;
        let first = set.snapshot(position, as_of);
        Ok(Self {
            clock: Arc::clone(&backend.clock),
            feed,
            set,
            first: Some(first),
        })
    }
}

#[async_trait]
impl Watcher for EtcdWatcher {
    async fn next(&mut self) -> Result<Feed> {
        if let Some(first) = self.first.take() {
            return Ok(Feed::Set(first));
        }
        let answer = self.feed.next().await?;
        let set = &mut self.set;
        self.feed.take(&answer, |entry| {
            // `Event::event_type` would panic on a type that it does not know.
            if entry.version() == 0 {
                set.delete(entry.key());
            } else {
                set.put(entry.key(), entry.value(), entry.into(), None);
            }
        })?;
        let (position, as_of) = (self.feed.position(), self.clock.now());
        Ok(if self.set.is_changed() {
            Feed::Set(self.set.snapshot(position, as_of))
        } else {
            Feed::Alive {
                revision: revision(position),
                as_of,
            }
        })
    }

    fn silence_limit(&self) -> Duration {
        self.feed.silence_limit()
    }
}
