//! A feed of one service of the embedded registry.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::ALIVE_EVERY;
use super::store::Store;
use crate::clock::Clock;
use crate::error::Result;
use crate::model::name::ServiceName;
use crate::model::snapshot::{Revision, Snapshot};
use crate::port::instancer::{Feed, Watcher};

#[derive(Debug)]
pub(super) struct MemoryWatcher {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    service: ServiceName,
    changes: Option<watch::Receiver<u64>>,
    /// The revision of the last reported change. `None` before the first set, unless the feed resumes.
    told: Option<u64>,
    answered: bool,
}

impl MemoryWatcher {
    pub(super) fn open(
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Self {
        let told = known
            .map(Snapshot::revision)
            .filter(|at| store.has_been_at(at))
            .map(Revision::value);
        let changes = Some(store.changes(service));
        Self {
            store,
            clock,
            service: service.clone(),
            changes,
            told,
            answered: false,
        }
    }
}

#[async_trait]
impl Watcher for MemoryWatcher {
    async fn next(&mut self) -> Result<Feed> {
        let alive_at = self.clock.now() + ALIVE_EVERY;
        loop {
            let now = self.clock.now();
            let (revision, changed_at, next_end) = self.store.position(&self.service, now);
            if self.told.is_none_or(|told| changed_at > told) {
                // A new feed has no earlier set, so nothing was withdrawn since.
                let snapshot =
                    self.store
                        .snapshot(&self.service, now, self.told.unwrap_or(u64::MAX));
                self.told = Some(snapshot.revision().value());
                self.answered = true;
                return Ok(Feed::Set(snapshot));
            }
            if !self.answered || now >= alive_at {
                self.answered = true;
                return Ok(Feed::Alive {
                    revision,
                    as_of: now,
                });
            }
            let wake = next_end.map_or(alive_at, |end| end.min(alive_at));
            let changed = async {
                match &mut self.changes {
                    Some(changes) => changes.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender lives as long as this receiver: `forget` comes after it.
                _ = changed => {}
                () = self.clock.sleep_until(wake) => {}
            }
        }
    }

    fn silence_limit(&self) -> Duration {
        ALIVE_EVERY * 3
    }
}

impl Drop for MemoryWatcher {
    fn drop(&mut self) {
        self.changes = None;
        self.store.forget(&self.service);
    }
}
