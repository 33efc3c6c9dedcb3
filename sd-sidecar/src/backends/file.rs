//! A JSON file as a registry that can only be read.

use std::sync::Arc;

use sd_backend::RegistryUrl;
use sd_core::combine::File;
use sd_core::{
    Backend, Error, Instancer, Registrar, Registry, RegistryConfig, Result, ServiceName, Snapshot,
    Watcher, async_trait,
};

/// `file:///path/services.json`
pub(super) fn open(url: &RegistryUrl, config: RegistryConfig) -> Result<Registry> {
    url.without_settings()?;
    if !url.hosts().is_empty() || url.username().is_some() || url.path().len() < 2 {
        return Err(Error::invalid_input(
            super::OP,
            "a file is named by its absolute path: write file:///path/services.json, with three slashes",
        ));
    }
    let file = File::new(url.path()).with_clock(Arc::clone(&config.clock));
    Ok(Registry::with_config(Arc::new(FileBackend(file)), config))
}

#[derive(Debug)]
struct FileBackend(File);

#[async_trait]
impl Instancer for FileBackend {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        self.0.services().await
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        self.0.list(service).await
    }

    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        self.0.watch(service, known).await
    }
}

#[async_trait]
impl Backend for FileBackend {
    fn name(&self) -> &'static str {
        "file"
    }

    /// A file has no leases: whoever writes it decides.
    fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>> {
        None
    }

    fn elector(self: Arc<Self>) -> Option<sd_core::AnyElector> {
        None
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
