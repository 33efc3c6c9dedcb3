//! Reading: the services, one service once, and the feed of one service.

use async_trait::async_trait;
use sd_core::{Instancer, Moment, Result, Revision, ServiceName, Snapshot, Watcher};

use crate::backend::ConsulBackend;
use crate::client::answer::Meta;
use crate::codec::Codec;
use crate::reading::service_set::ServiceSet;
use crate::reading::watcher::ConsulWatcher;

#[async_trait]
impl Instancer for ConsulBackend {
    /// Also of services whose instances are all unwell.
    async fn services(&self) -> Result<Vec<ServiceName>> {
        self.client.services("consul: list services").await
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        let sent = self.clock.now();
        let read = self
            .client
            .service_entries("consul: list service", service)
            .await?;
        let at = self.position(&read.meta, sent);
        Ok(self
            .service_set(service)
            .snapshot(read.entries, at, None, None))
    }

    /// Always reads everything. The position of `known` proves nothing: a server that lost its data counts from the beginning, and
    /// may have passed the same position.
    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        let watcher = ConsulWatcher::open(self, service, known).await?;
        Ok(Box::new(watcher))
    }
}

impl ConsulBackend {
    /// What makes a set of the service's entries.
    pub(crate) fn service_set(&self, service: &ServiceName) -> ServiceSet {
        let config = self.client.config();
        ServiceSet::new(service.clone(), Codec::new(config), config.nearest)
    }

    /// The position of an answer, and the moment, no later than `at`, of which it tells.
    pub(crate) fn position(&self, meta: &Meta, at: Moment) -> (Revision, Moment) {
        (
            self.revision_domain.revision(meta.index),
            at - meta.staleness,
        )
    }
}
