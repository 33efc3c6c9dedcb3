//! Reading: the services, one service once, and the feed of one service.

use std::collections::BTreeSet;

use async_trait::async_trait;
use etcd_client::KeyValue;
use sd_core::port::ServicesWatcher;
use sd_core::{Instancer, Result, ServiceList, ServiceName, Snapshot, Watcher};
use tracing::info;

use crate::backend::EtcdBackend;
use crate::client::range::{read_folders, read_keys};
use crate::config::format::Format;
use crate::reading::full_read::read_service;
use crate::reading::services_watcher::{EtcdServicesWatcher, ServiceKeys};
use crate::reading::watcher::EtcdWatcher;

#[async_trait]
impl Instancer for EtcdBackend {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        Ok(self.list_services().await?.services)
    }

    async fn list_services(&self) -> Result<ServiceList> {
        const OP: &str = "etcd: list services";
        let (all, end) = self.layout.all();
        if self.layout.has_one_key() {
            let new = || ServiceKeys::new(&self.layout);
            let put = |keys: &mut ServiceKeys, entry: &KeyValue| keys.put(entry.key());
            let (keys, _) = read_keys(&self.client, OP, (&all, &end), new, put).await?;
            return Ok(keys.list());
        }
        let folders = read_folders(&self.client, OP, (&all, &end)).await?;
        // Other programs' keys may lie here, too. A service may have our folder and go-kit's.
        let mut services = BTreeSet::new();
        let mut others = folders.flat;
        for folder in &folders.names {
            match self.layout.service_of_folder(folder) {
                Some(service) => drop(services.insert(service)),
                None => others += 1,
            }
        }
        if others > 0 {
            info!(
                prefix = self.client.config().prefix,
                others, "keys and folders under the prefix are not of services and are not listed"
            );
        }
        let services: Vec<_> = services.into_iter().collect();
        Ok(ServiceList::from(services).with_unlisted(others))
    }

    async fn watch_services(&self) -> Result<Option<Box<dyn ServicesWatcher>>> {
        let watcher = EtcdServicesWatcher::open(self).await?;
        Ok(Some(Box::new(watcher)))
    }

    /// Other projects' entries cannot be marked.
    fn tells_withdrawals(&self) -> bool {
        self.client.config().format == Format::Json
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        let as_of = self.clock.now();
        let (mut set, positions) = read_service(
            &self.client,
            &self.layout,
            "etcd: list service",
            service,
            None,
        )
        .await?;
        Ok(set.snapshot(positions.ours, as_of))
    }

    /// Always reads everything. The position of `known` proves nothing: a cluster that was restarted without its data has
    /// the same cluster id, and may have passed the same revision.
    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        let watcher = EtcdWatcher::open(self, service, known).await?;
        Ok(Box::new(watcher))
    }
}
