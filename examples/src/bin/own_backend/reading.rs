//! Reading: lists, and a feed that looks for changes now and then, since a folder does not tell of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sd_core::clock::Clock;
use sd_core::port::{Feed, async_trait};
use sd_core::{Instancer, Result, Revision, ServiceName, Skipped, Snapshot, Watcher};
use tokio::time::sleep;

use crate::backend::FolderBackend;
use crate::codec::{decode, file_name, service_of};
use crate::store::Store;

/// How often a quiet feed says that it is alive, in looks.
const ALIVE_EVERY: u32 = 5;

/// Reads sets. A folder has no positions, so the reads of one backend are counted.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) domain: String,
    pub(crate) reads: AtomicU64,
}

impl Reader {
    async fn read(
        &self,
        op: &'static str,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Snapshot> {
        let (folder, as_of) = (file_name(op, service.as_str())?, self.clock.now());
        let (mut instances, mut skipped) = (Vec::new(), Vec::new());
        for (name, content) in self.store.read(op, &folder).await? {
            match decode(service, &name, &content) {
                Ok(instance) => instances.push(Snapshot::share(known, instance)),
                Err(reason) => skipped.push(Skipped::new(format!("{folder}/{name}"), reason)),
            }
        }
        let read = self.reads.fetch_add(1, Ordering::Relaxed) + 1;
        let revision = Revision::new(self.domain.as_str(), read);
        Ok(Snapshot::new(service.clone(), revision, as_of, instances).with_skipped(skipped))
    }
}

#[async_trait]
impl Instancer for FolderBackend {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        let folders = self.reader.store.folders("folder: list services").await?;
        let mut services: Vec<_> = folders.iter().filter_map(|name| service_of(name)).collect();
        services.sort();
        Ok(services)
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        self.reader
            .read("folder: list service", service, None)
            .await
    }

    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        let last = self.reader.read(OP, service, known).await?;
        Ok(Box::new(FolderWatcher {
            reader: Arc::clone(&self.reader),
            poll: self.poll,
            is_told: false,
            last,
        }))
    }
}

const OP: &str = "folder: watch service";

/// One service, followed.
#[derive(Debug)]
struct FolderWatcher {
    reader: Arc<Reader>,
    poll: Duration,
    is_told: bool,
    last: Snapshot,
}

#[async_trait]
impl Watcher for FolderWatcher {
    async fn next(&mut self) -> Result<Feed> {
        if !std::mem::replace(&mut self.is_told, true) {
            return Ok(Feed::Set(self.last.clone()));
        }
        for _ in 0..ALIVE_EVERY {
            sleep(self.poll).await;
            let service = self.last.service().clone();
            let now = self.reader.read(OP, &service, Some(&self.last)).await?;
            let is_same = now.is_same_set(&self.last);
            let before = std::mem::replace(&mut self.last, now.clone());
            if !is_same {
                // A file stays when its owner crashes, so what is gone was removed on purpose.
                let ids = before.instances().iter().map(|instance| instance.id());
                let gone = ids.filter(|id| now.get(id).is_none()).cloned().collect();
                return Ok(Feed::Set(now.with_withdrawn(gone)));
            }
        }
        let (revision, as_of) = (self.last.revision().clone(), self.last.as_of());
        Ok(Feed::Alive { revision, as_of })
    }

    fn silence_limit(&self) -> Duration {
        (self.poll * ALIVE_EVERY) * 2 + Duration::from_secs(10)
    }
}
