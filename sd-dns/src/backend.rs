//! What a configuration opens: names that are read.

use std::sync::Arc;

use async_trait::async_trait;
use hickory_resolver::proto::rr::RecordType;
use sd_core::clock::{BootClock, Clock};
use sd_core::port::AnyElector;
use sd_core::{Backend, Registrar, Registry, RegistryConfig, Result};

use crate::client::Client;
use crate::config::DnsConfig;
use crate::reading::instancer::Source;

/// Opens a registry over DNS, which can only be read. Does not wait for a resolver and needs no runtime. Reads the files that `config`
/// names, and those of the system if it names no resolver; blocks while it does, for 5 s at most.
///
/// # Errors
/// `InvalidInput` names the setting that is wrong or whose file cannot be read.
pub fn connect(config: DnsConfig) -> Result<Registry> {
    connect_with(config, RegistryConfig::default())
}

/// Like [`connect`], with settings for subscriptions.
///
/// # Errors
/// Like [`connect`].
pub fn connect_with(config: DnsConfig, registry: RegistryConfig) -> Result<Registry> {
    let backend = DnsBackend::with_clock(config, Arc::clone(&registry.clock))?;
    Ok(Registry::with_config(Arc::new(backend), registry))
}

/// Names that are read. Most programs use a [`Registry`] over it instead, from [`connect`].
#[derive(Debug)]
pub struct DnsBackend {
    pub(crate) source: Arc<Source>,
}

impl DnsBackend {
    /// A backend over the names that `config` describes. Does not wait for a resolver. Reads files as [`connect`] does, and blocks while
    /// it does.
    ///
    /// # Errors
    /// Like [`connect`].
    pub fn new(config: DnsConfig) -> Result<Self> {
        Self::with_clock(config, Arc::new(BootClock))
    }

    /// As [`new`](Self::new), but measures the age of sets with `clock`.
    ///
    /// # Errors
    /// Like [`connect`].
    pub fn with_clock(config: DnsConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        let client = Client::new(config)?;
        Ok(Self {
            source: Arc::new(Source::new(client, clock)),
        })
    }
}

#[async_trait]
impl Backend for DnsBackend {
    /// One question about the domain. That it does not exist is an answer.
    async fn check(&self) -> Result<()> {
        const OP: &str = "dns: check";
        let client = &self.source.client;
        client.signal.check_open(OP)?;
        let domain = client.settings().names.domain();
        let asked = async {
            let answers = client.lookup(&domain, &[RecordType::SOA]).await;
            let failed = answers.into_iter().find_map(Result::err);
            failed.map_or(Ok(()), |failure| Err(failure.of(OP)))
        };
        client.within_limit(OP, asked).await
    }

    fn name(&self) -> &'static str {
        "dns"
    }

    fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>> {
        None
    }

    fn elector(self: Arc<Self>) -> Option<AnyElector> {
        None
    }

    async fn close(&self) -> Result<()> {
        self.source.client.signal.close();
        Ok(())
    }
}
