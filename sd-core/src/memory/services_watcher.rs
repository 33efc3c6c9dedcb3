//! The feed of the list of services of the embedded registry.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::ALIVE_EVERY;
use super::store::Store;
use crate::clock::Clock;
use crate::error::Result;
use crate::model::name::ServiceName;
use crate::port::instancer::ServicesWatcher;

#[derive(Debug)]
pub(super) struct MemoryServicesWatcher {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    changes: watch::Receiver<u64>,
    told: Option<Vec<ServiceName>>,
}

impl MemoryServicesWatcher {
    pub(super) fn open(store: Arc<Store>, clock: Arc<dyn Clock>) -> Self {
        Self {
            changes: store.all_changes(),
            store,
            clock,
            told: None,
        }
    }
}

#[async_trait]
impl ServicesWatcher for MemoryServicesWatcher {
    async fn next(&mut self) -> Result<Vec<ServiceName>> {
        let alive_at = self.clock.now() + ALIVE_EVERY;
        loop {
            self.changes.mark_unchanged();
            let now = self.clock.now();
            let services = self.store.services(now);
            if now >= alive_at || self.told.as_ref() != Some(&services) {
                self.told = Some(services.clone());
                return Ok(services);
            }
            let next_end = self.store.next_end();
            let wake = next_end.map_or(alive_at, |end| end.min(alive_at));
            tokio::select! {
                // The store has the sender.
                _ = self.changes.changed() => {}
                () = self.clock.sleep_until(wake) => {}
            }
        }
    }

    fn silence_limit(&self) -> Duration {
        ALIVE_EVERY * 3
    }
}
