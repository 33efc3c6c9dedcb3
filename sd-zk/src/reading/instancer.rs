//! Reading: the services, one service once, and the feed of one service.

use async_trait::async_trait;
use sd_core::port::ServicesWatcher;
use sd_core::{Instancer, Result, ServiceList, ServiceName, Snapshot, Watcher};

use crate::backend::ZkBackend;
use crate::client::error::for_readers;
use crate::client::session::Session;
use crate::reading::full_read::{read_service, read_services};
use crate::reading::services_watcher::ZkServicesWatcher;
use crate::reading::watcher::ZkWatcher;

#[async_trait]
impl Instancer for ZkBackend {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        Ok(self.list_services().await?.services)
    }

    async fn list_services(&self) -> Result<ServiceList> {
        const OP: &str = "zk: list services";
        let read = async |session| read_services(&session, &self.layout, OP).await;
        self.client.read(OP, read).await
    }

    async fn watch_services(&self) -> Result<Option<Box<dyn ServicesWatcher>>> {
        let watcher = ZkServicesWatcher::open(self).await;
        Ok(Some(Box::new(watcher.map_err(for_readers)?)))
    }

    /// Other projects' records cannot be marked.
    fn tells_withdrawals(&self) -> bool {
        self.layout.tells_withdrawals()
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        const OP: &str = "zk: list service";
        let as_of = self.clock.now();
        let read = async |session: Session| {
            let set = read_service(&session, &self.layout, OP, service).await?;
            Ok((set, session.id()))
        };
        let (mut set, session) = self.client.read(OP, read).await?;
        Ok(set.snapshot(session, as_of))
    }

    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        let watcher = ZkWatcher::open(self, service, known).await;
        Ok(Box::new(watcher.map_err(for_readers)?))
    }
}
