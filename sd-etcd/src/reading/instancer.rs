//! Reading: the services, one service once, and the feed of one service.

use async_trait::async_trait;
use etcd_client::GetOptions;
use sd_core::port::ServicesWatcher;
use sd_core::{Instancer, Result, ServiceName, Snapshot, Watcher};

use crate::backend::EtcdBackend;
use crate::client::range::after_key;
use crate::config::format::Format;
use crate::reading::full_read::read_service;
use crate::reading::services_watcher::EtcdServicesWatcher;
use crate::reading::watcher::EtcdWatcher;

#[async_trait]
impl Instancer for EtcdBackend {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        const OP: &str = "etcd: list services";
        let (all, end) = self.layout.all();
        let options = GetOptions::new()
            .with_range(end)
            .with_limit(1)
            .with_keys_only();
        let mut services = Vec::new();
        let mut from = all.clone().into_bytes();
        // One request for each service, however many instances it has: the next one begins after all keys of this one.
        loop {
            let answer = self.client.get(OP, &from, &options).await?;
            let Some(first) = answer.kvs().first() else {
                services.sort();
                // Our folder of a service and go-kit's.
                services.dedup();
                return Ok(services);
            };
            let mut key = first.key().to_vec();
            let name = key.get(all.len()..).unwrap_or_default();
            if let Some(length) = name.iter().position(|byte| *byte == b'/') {
                // Other programs' keys may lie here, too.
                services.extend(self.layout.service_of(&key));
                key.truncate(all.len() + length);
                from = after_folder(key);
            } else {
                from = after_key(key);
            }
        }
    }

    async fn watch_services(&self) -> Result<Option<Box<dyn ServicesWatcher>>> {
        let watcher = EtcdServicesWatcher::open(self).await?;
        Ok(Some(Box::new(watcher)))
    }

    /// go-kit's entries are addresses and nothing else.
    fn tells_withdrawals(&self) -> bool {
        self.client.config().format != Format::GoKit
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

/// The first key that may follow all keys below `folder/`.
fn after_folder(mut folder: Vec<u8>) -> Vec<u8> {
    folder.push(b'/' + 1);
    folder
}
