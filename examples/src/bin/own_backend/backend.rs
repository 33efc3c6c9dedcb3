//! What a URL opens: one folder with its ports.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use sd_core::clock::BootClock;
use sd_core::port::{AnyElector, async_trait};
use sd_core::{Backend, Incarnation, Registrar, Registry, Result};

use crate::config::FolderConfig;
use crate::reading::Reader;
use crate::store::Store;
use crate::writing::FolderRegistrar;

/// Opens a registry over the folder that a URL names.
///
/// # Errors
/// `InvalidInput` names the setting that is wrong.
pub(crate) fn connect(url: &str) -> Result<Registry> {
    Ok(Registry::new(Arc::new(FolderBackend::new(
        &FolderConfig::from_url(url)?,
    ))))
}

/// One folder.
#[derive(Debug)]
pub(crate) struct FolderBackend {
    pub(crate) reader: Arc<Reader>,
    pub(crate) poll: Duration,
    registrar: Arc<FolderRegistrar>,
}

impl FolderBackend {
    pub(crate) fn new(config: &FolderConfig) -> Self {
        let store = Arc::new(Store::new(config.path(), config.request_timeout()));
        let reader = Reader {
            store: Arc::clone(&store),
            clock: Arc::new(BootClock),
            domain: format!("folder-{}", Incarnation::random()),
            reads: AtomicU64::new(0),
        };
        Self {
            reader: Arc::new(reader),
            poll: config.poll(),
            registrar: Arc::new(FolderRegistrar::new(store)),
        }
    }
}

#[async_trait]
impl Backend for FolderBackend {
    fn name(&self) -> &'static str {
        "folder"
    }

    fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>> {
        let registrar: Arc<dyn Registrar> = Arc::<FolderRegistrar>::clone(&self.registrar);
        Some(registrar)
    }

    /// Nothing in a folder ends with a candidate that crashes.
    fn elector(self: Arc<Self>) -> Option<AnyElector> {
        None
    }

    async fn close(&self) -> Result<()> {
        self.reader.store.signal.close();
        Ok(())
    }
}
