//! What a configuration opens: one ensemble with its ports.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use sd_core::clock::{BootClock, Clock};
use sd_core::port::{AnyElector, Operator};
use sd_core::{Backend, Registrar, Registry, RegistryConfig, Result};

use crate::client::Client;
use crate::client::credentials::Credentials;
use crate::client::session::Session;
use crate::codec::Layout;
use crate::config::ZkConfig;
use crate::config::rules::{FILES, RULES};
use crate::election::candidate_sessions::CandidateSessions;
use crate::election::elector::ZkElector;
use crate::operating::operator::ZkOperator;
use crate::writing::registrar::ZkRegistrar;

/// Opens a registry over a ZooKeeper ensemble. Does not wait for the server and needs no runtime: the first use connects. Reads the files
/// that `config` names, and blocks while it does, for no longer than the request timeout.
///
/// # Errors
/// `InvalidInput` names the setting that is wrong or whose file cannot be read.
pub fn connect(config: ZkConfig) -> Result<Registry> {
    connect_with(config, RegistryConfig::default())
}

/// Like [`connect`], with settings for subscriptions and registrations. The time-to-live of registrations is that of the session.
///
/// # Errors
/// Like [`connect`].
pub fn connect_with(config: ZkConfig, mut registry: RegistryConfig) -> Result<Registry> {
    registry.registration.ttl = config.session_timeout;
    let backend = ZkBackend::new(config)?.with_clock(Arc::clone(&registry.clock));
    Ok(Registry::with_config(Arc::new(backend), registry))
}

/// One ZooKeeper ensemble, reached in one session. Most programs use a [`Registry`] over it instead, from [`connect`].
#[derive(Debug)]
pub struct ZkBackend {
    pub(crate) client: Arc<Client>,
    pub(crate) layout: Layout,
    pub(crate) clock: Arc<dyn Clock>,
    registrar: Arc<ZkRegistrar>,
    candidates: OnceLock<Arc<CandidateSessions>>,
}

impl ZkBackend {
    /// A backend over the ensemble that `config` names. Does not wait for the server. Reads the files that `config` names, and blocks
    /// while it does, for no longer than the request timeout.
    ///
    /// # Errors
    /// `InvalidInput` names the setting that is wrong or whose file cannot be read.
    pub fn new(config: ZkConfig) -> Result<Self> {
        let config = config.checked()?;
        let of_files = config.clone();
        RULES.read_within(FILES, config.request_timeout, move || {
            Credentials::read(&of_files)
        })?;
        let layout = Layout::new(&config);
        let client = Arc::new(Client::new(config)?);
        Ok(Self {
            registrar: Arc::new(ZkRegistrar::new(Arc::clone(&client), layout.clone())),
            client,
            layout,
            clock: Arc::new(BootClock),
            candidates: OnceLock::new(),
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
impl Backend for ZkBackend {
    /// One look whether a node is there, after which the session is known to work.
    async fn check(&self) -> Result<()> {
        const OP: &str = "zk: check";
        let prefix = self.client.config().prefix.as_str();
        let look = async |session: Session| {
            let client = session.client(OP).await?;
            session.call(OP, client.check_stat(prefix)).await.map(drop)
        };
        self.client.read(OP, look).await
    }

    fn name(&self) -> &'static str {
        "zk"
    }

    fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>> {
        let registrar: Arc<dyn Registrar> = Arc::<ZkRegistrar>::clone(&self.registrar);
        Some(registrar)
    }

    fn operator(self: Arc<Self>) -> Option<Arc<dyn Operator>> {
        let (client, layout) = (Arc::clone(&self.client), self.layout.clone());
        Some(Arc::new(ZkOperator::new(client, layout)))
    }

    fn elector(self: Arc<Self>) -> Option<AnyElector> {
        let (client, clock) = (Arc::clone(&self.client), Arc::clone(&self.clock));
        let sessions = self.candidates.get_or_init(|| {
            let sessions = CandidateSessions::new(Arc::clone(&client), Arc::clone(&clock));
            Arc::new(sessions)
        });
        let elector = ZkElector::new(client, Arc::clone(sessions), clock);
        Some(AnyElector::Strict(Arc::new(elector)))
    }

    async fn close(&self) -> Result<()> {
        self.client.close().await;
        Ok(())
    }
}
