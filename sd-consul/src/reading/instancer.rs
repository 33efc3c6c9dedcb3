//! Reading: the services, one service once, and the feed of one service.

use async_trait::async_trait;
use sd_core::port::ServicesWatcher;
use sd_core::{Instancer, Result, ServiceList, ServiceName, Snapshot, Watcher};

use crate::backend::ConsulBackend;
use crate::reading::service_set::ServiceSet;
use crate::reading::services_watcher::ConsulServicesWatcher;
use crate::reading::watcher::ConsulWatcher;

#[async_trait]
impl Instancer for ConsulBackend {
    /// Also of services whose instances are all unwell.
    async fn services(&self) -> Result<Vec<ServiceName>> {
        Ok(self.list_services().await?.services)
    }

    async fn list_services(&self) -> Result<ServiceList> {
        let read = self.client.services("consul: list services").await?;
        Ok(ServiceList::from(read.services).with_unlisted(read.unlisted))
    }

    async fn watch_services(&self) -> Result<Option<Box<dyn ServicesWatcher>>> {
        self.client.signal.check_open("consul: watch services")?;
        Ok(Some(Box::new(ConsulServicesWatcher::open(self))))
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        let sent = self.clock.now();
        let client = &self.client;
        let read = client
            .service_entries("consul: list service", service)
            .await?;
        let at = self.revision_domain.position(&read.meta(), sent);
        ServiceSet::new(service, client.config())
            .read(read, at, None, false)
            .await
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
