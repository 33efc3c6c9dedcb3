//! A backend made of a scripted source and a scripted registrar.

use std::sync::Arc;

use async_trait::async_trait;
use sd_core::{Backend, Instancer, Registrar, Result, ServiceName, Snapshot, Watcher};

use crate::{ScriptedInstancer, ScriptedRegistrar};

/// A [`Backend`] for a [`Registry`](sd_core::Registry), with answers that the test scripts. Cheap to clone; clones share
/// everything.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ScriptedBackend {
    /// What readers are told.
    pub instancer: ScriptedInstancer,
    /// How writers are answered.
    pub registrar: ScriptedRegistrar,
}

#[async_trait]
impl Instancer for ScriptedBackend {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        self.instancer.services().await
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        self.instancer.list(service).await
    }

    fn tells_withdrawals(&self) -> bool {
        self.instancer.tells_withdrawals()
    }

    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        self.instancer.watch(service, known).await
    }
}

#[async_trait]
impl Backend for ScriptedBackend {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>> {
        Some(Arc::new(self.registrar.clone()))
    }

    fn elector(self: Arc<Self>) -> Option<sd_core::port::AnyElector> {
        None
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
