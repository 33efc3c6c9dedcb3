//! A backend made of a scripted source and a scripted registrar.

use std::sync::Arc;

use async_trait::async_trait;

use crate::backend::Backend;
use crate::error::Result;
use crate::instancer::{Instancer, Watcher};
use crate::name::ServiceName;
use crate::registrar::Registrar;
use crate::snapshot::Snapshot;
use crate::testing::{ScriptedInstancer, ScriptedRegistrar};

/// A [`Backend`] for a [`Registry`](crate::Registry) over what a test writes. Cheap to clone; clones share everything.
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

    fn elector(self: Arc<Self>) -> Option<crate::elector::AnyElector> {
        None
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
