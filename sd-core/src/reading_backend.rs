//! A registry that can only be read, over any instancer.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::model::name::ServiceName;
use crate::model::snapshot::Snapshot;
use crate::port::backend::Backend;
use crate::port::elector::AnyElector;
use crate::port::instancer::{Instancer, ServiceList, ServicesWatcher, Watcher};
use crate::port::registrar::Registrar;

#[derive(Debug)]
pub(crate) struct ReadingBackend {
    instancer: Arc<dyn Instancer>,
    closed: CancellationToken,
}

impl ReadingBackend {
    pub(crate) fn new(instancer: Arc<dyn Instancer>) -> Self {
        Self {
            instancer,
            closed: CancellationToken::new(),
        }
    }

    fn source(&self, op: &'static str) -> Result<&dyn Instancer> {
        if self.closed.is_cancelled() {
            return Err(Error::new(ErrorKind::Closed, op).because("the registry was closed"));
        }
        Ok(self.instancer.as_ref())
    }
}

#[async_trait]
impl Instancer for ReadingBackend {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        self.source("list services")?.services().await
    }

    async fn list_services(&self) -> Result<ServiceList> {
        self.source("list services")?.list_services().await
    }

    async fn watch_services(&self) -> Result<Option<Box<dyn ServicesWatcher>>> {
        self.source("watch services")?.watch_services().await
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        self.source("list service")?.list(service).await
    }

    fn tells_withdrawals(&self) -> bool {
        self.instancer.tells_withdrawals()
    }

    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        self.source("watch service")?.watch(service, known).await
    }
}

#[async_trait]
impl Backend for ReadingBackend {
    fn name(&self) -> &'static str {
        "reading"
    }

    fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>> {
        None
    }

    fn elector(self: Arc<Self>) -> Option<AnyElector> {
        None
    }

    /// What the instancer holds is released when the last subscription ends: others may use it, too.
    async fn close(&self) -> Result<()> {
        self.closed.cancel();
        Ok(())
    }
}
