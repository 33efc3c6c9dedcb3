//! The reading port of the embedded registry.

use std::sync::Arc;

use async_trait::async_trait;

use super::MemoryBackend;
use super::elector::MemoryElector;
use super::services_watcher::MemoryServicesWatcher;
use super::watcher::MemoryWatcher;
use crate::error::Result;
use crate::model::name::ServiceName;
use crate::model::snapshot::Snapshot;
use crate::port::backend::Backend;
use crate::port::elector::AnyElector;
use crate::port::instancer::{Instancer, ServicesWatcher, Watcher};
use crate::port::operator::Operator;
use crate::port::registrar::Registrar;

#[async_trait]
impl Instancer for MemoryBackend {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        self.check_open("memory: list services")?;
        Ok(self.store.services(self.clock.now()))
    }

    async fn watch_services(&self) -> Result<Option<Box<dyn ServicesWatcher>>> {
        self.check_open("memory: watch services")?;
        Ok(Some(Box::new(MemoryServicesWatcher::open(
            Arc::clone(&self.store),
            Arc::clone(&self.clock),
        ))))
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        self.check_open("memory: list service")?;
        Ok(self.store.snapshot(service, self.clock.now(), u64::MAX))
    }

    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        self.check_open("memory: watch service")?;
        Ok(Box::new(MemoryWatcher::open(
            Arc::clone(&self.store),
            Arc::clone(&self.clock),
            service,
            known,
        )))
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>> {
        Some(self)
    }

    fn operator(self: Arc<Self>) -> Option<Arc<dyn Operator>> {
        Some(self)
    }

    fn elector(self: Arc<Self>) -> Option<AnyElector> {
        Some(AnyElector::Strict(Arc::new(MemoryElector::new(&self))))
    }

    async fn close(&self) -> Result<()> {
        self.closed.cancel();
        Ok(())
    }
}
