//! A JSON file as a read-only registry.

use std::sync::Arc;

use sd_backend::RegistryUrl;
use sd_core::combine::File;
use sd_core::port::async_trait;
use sd_core::{
    Backend, Error, Instancer, Registrar, Registry, RegistryConfig, Result, ServiceName, Snapshot,
    Watcher,
};

/// `file:///path/services.json`
pub(crate) fn open(url: &str, config: RegistryConfig) -> Result<Registry> {
    let url = RegistryUrl::parse(url)?;
    url.without_settings()?;
    let has_user = url.username().is_some() || url.password().is_some();
    if !url.hosts().is_empty() || has_user || url.path().len() < 2 {
        return Err(Error::invalid_input(
            "open file registry",
            "the URL must hold an absolute path and nothing else: write file:///path/services.json, with three slashes",
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

    /// A file has no leases: the program that writes it decides.
    fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>> {
        None
    }

    fn elector(self: Arc<Self>) -> Option<sd_core::port::AnyElector> {
        None
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    #[test]
    fn a_file_is_named_by_its_absolute_path_alone() {
        open("file:///etc/services.json", RegistryConfig::default()).unwrap();
        for url in [
            "file://services.json",
            "file:///",
            "file:///a?ttl=1s",
            "file://u@/a",
            "file://:p@/a",
        ] {
            let error = open(url, RegistryConfig::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
        }
    }
}
