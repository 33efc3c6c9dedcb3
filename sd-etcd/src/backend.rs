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
use crate::config::rules::{FILES, RULES};
use crate::election::elector::EtcdElector;
use crate::operating::operator::EtcdOperator;
use crate::writing::registrar::EtcdRegistrar;

/// Opens a registry over an etcd cluster. Does not wait for the server and needs no runtime: the first use connects. Blocks while it
/// reads the files that `config` names, for no longer than the request timeout.
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
    /// A backend over the cluster that `config` names. Does not wait for the server. Blocks while it reads the files that `config`
    /// names, for no longer than the request timeout.
    ///
    /// # Errors
    /// `InvalidInput` names the setting that is wrong or whose file cannot be read.
    pub fn new(config: EtcdConfig) -> Result<Self> {
        let config = config.checked()?;
        let named = config.clone();
        RULES.read_within(FILES, config.request_timeout, move || {
            Credentials::read(&named)
        })?;
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
        self.client.signal.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sd_core::ErrorKind;

    use super::*;

    #[test]
    fn a_file_that_hangs_is_refused_by_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("password");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let config = EtcdConfig::new(["h:1"])
            .with_password_file("u", pipe)
            .with_request_timeout(Duration::from_millis(100));
        let error = EtcdBackend::new(config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let report = error.report().to_string();
        assert!(report.contains("password_file"), "{report}");
    }
}
