//! What a configuration opens: one cluster with its ports.

use std::sync::Arc;

use async_trait::async_trait;
use etcd_client::GetOptions;
use sd_core::clock::{BootClock, Clock};
use sd_core::port::{AnyElector, Operator};
use sd_core::{Backend, Registrar, Registry, RegistryConfig, Result};

use crate::client::Client;
use crate::client::credentials::Credentials;
use crate::codec::Layout;
use crate::config::EtcdConfig;
use crate::election::elector::EtcdElector;
use crate::operating::operator::EtcdOperator;
use crate::writing::registrar::EtcdRegistrar;

/// Opens a registry over an etcd cluster. Does not wait for the server and needs no runtime: the first use connects. Reads the
/// files that `config` names, and blocks while it does.
///
/// # Errors
/// `InvalidInput` names the setting that is wrong or whose file cannot be read.
pub fn connect(config: EtcdConfig) -> Result<Registry> {
    connect_with(config, RegistryConfig::default())
}

/// Like [`connect`], with settings for subscriptions and registrations.
///
/// # Errors
/// Like [`connect`].
pub fn connect_with(config: EtcdConfig, mut registry: RegistryConfig) -> Result<Registry> {
    if let Some(ttl) = config.ttl {
        registry.registration.ttl = ttl;
    }
    let backend = EtcdBackend::new(config)?.with_clock(Arc::clone(&registry.clock));
    Ok(Registry::with_config(Arc::new(backend), registry))
}

/// One etcd cluster, reached over one connection. Most programs use a [`Registry`] over it instead, from [`connect`].
#[derive(Debug)]
pub struct EtcdBackend {
    pub(crate) client: Arc<Client>,
    pub(crate) layout: Layout,
    pub(crate) clock: Arc<dyn Clock>,
    registrar: Arc<EtcdRegistrar>,
}

impl EtcdBackend {
    /// A backend over the cluster that `config` names. Does not wait for the server. Reads the files that `config` names, and blocks
    /// while it does.
    ///
    /// # Errors
    /// `InvalidInput` names the setting that is wrong or whose file cannot be read.
    pub fn new(config: EtcdConfig) -> Result<Self> {
        let config = config.checked()?;
        Credentials::read(&config)?;
        let layout = Layout::new(&config.prefix, config.format);
        let client = Arc::new(Client::new(config));
        Ok(Self {
            registrar: Arc::new(EtcdRegistrar::new(Arc::clone(&client), layout.clone())),
            client,
            layout,
            clock: Arc::new(BootClock),
        })
    }

    /// Measures the age of sets with `clock`. Default: [`BootClock`].
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

#[async_trait]
impl Backend for EtcdBackend {
    /// One read, however many services there are.
    async fn check(&self) -> Result<()> {
        let (all, end) = self.layout.all();
        let options = GetOptions::new()
            .with_range(end)
            .with_limit(1)
            .with_keys_only();
        let read = self.client.get("etcd: check", all.as_bytes(), &options);
        read.await.map(drop)
    }

    fn name(&self) -> &'static str {
        "etcd"
    }

    fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>> {
        if self.layout.is_read_only() {
            return None;
        }
        let registrar: Arc<dyn Registrar> = Arc::<EtcdRegistrar>::clone(&self.registrar);
        Some(registrar)
    }

    fn operator(self: Arc<Self>) -> Option<Arc<dyn Operator>> {
        if self.layout.is_read_only() {
            return None;
        }
        let (client, layout) = (Arc::clone(&self.client), self.layout.clone());
        Some(Arc::new(EtcdOperator::new(client, layout)))
    }

    fn elector(self: Arc<Self>) -> Option<AnyElector> {
        Some(AnyElector::Strict(Arc::new(EtcdElector::new(
            Arc::clone(&self.client),
            Arc::clone(&self.clock),
        ))))
    }

    async fn close(&self) -> Result<()> {
        self.client.close();
        Ok(())
    }
}
