//! What a configuration opens: one server, or several that belong together, with its ports.

use std::sync::Arc;

use async_trait::async_trait;
use redis::Cmd;
use sd_core::clock::{BootClock, Clock};
use sd_core::port::{AnyElector, Operator};
use sd_core::{Backend, Registrar, Registry, RegistryConfig, Result};

use crate::client::Client;
use crate::client::credentials::Credentials;
use crate::codec::names::Layout;
use crate::config::RedisConfig;
use crate::config::format::Format;
use crate::config::rules::{FILES, RULES};
use crate::election::clients::CandidateClients;
use crate::election::elector::RedisElector;
use crate::heartbeats::Heartbeats;
use crate::operating::operator::RedisOperator;
use crate::reading::position::Positions;
use crate::writing::heartbeat_registrar::HeartbeatRegistrar;
use crate::writing::registrar::RedisRegistrar;

/// Opens a registry over Redis or Valkey. Does not wait for the server and needs no runtime: the first use connects. Blocks while it reads
/// the files that `config` names, for no longer than the request timeout.
///
/// # Errors
/// `InvalidInput` names the setting that is wrong or whose file cannot be read.
pub fn connect(config: RedisConfig) -> Result<Registry> {
    connect_with(config, RegistryConfig::default())
}

/// Like [`connect`], with settings for subscriptions and registrations.
///
/// # Errors
/// Like [`connect`].
pub fn connect_with(config: RedisConfig, mut registry: RegistryConfig) -> Result<Registry> {
    if let Some(ttl) = config.ttl {
        registry.registration.ttl = ttl;
    }
    let backend = RedisBackend::new(config)?.with_clock(Arc::clone(&registry.clock));
    Ok(Registry::with_config(Arc::new(backend), registry))
}

/// One Redis or Valkey, alone, behind Sentinels or as a Cluster. Most programs use a [`Registry`] over it instead, from [`connect`].
#[derive(Debug)]
pub struct RedisBackend {
    pub(crate) client: Arc<Client>,
    pub(crate) layout: Layout,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) positions: Arc<Positions>,
    /// With [`Format::Heartbeat`].
    pub(crate) heartbeats: Option<Heartbeats>,
    registrar: Arc<dyn Registrar>,
    candidates: Arc<CandidateClients>,
}

impl RedisBackend {
    /// A backend over the servers that `config` names. Does not wait for them. Blocks while it reads the files that `config` names, for no
    /// longer than the request timeout.
    ///
    /// # Errors
    /// `InvalidInput` names the setting that is wrong or whose file cannot be read.
    pub fn new(config: RedisConfig) -> Result<Self> {
        let config = config.checked()?;
        let named = config.clone();
        RULES.read_within(FILES, config.request_timeout, move || {
            Credentials::read(&named)
        })?;
        let (layout, format) = (Layout::new(&config.prefix), config.format);
        let client = Arc::new(Client::new(config));
        let heartbeats = Heartbeats::new(Arc::clone(&client));
        let heartbeats = (format == Format::Heartbeat).then_some(heartbeats);
        let registrar: Arc<dyn Registrar> = match &heartbeats {
            Some(heartbeats) => Arc::new(HeartbeatRegistrar::new(heartbeats.clone())),
            None => Arc::new(RedisRegistrar::new(Arc::clone(&client), layout.clone())),
        };
        Ok(Self {
            candidates: Arc::new(CandidateClients::new(Arc::clone(&client))),
            heartbeats,
            registrar,
            client,
            layout,
            clock: Arc::new(BootClock),
            positions: Arc::default(),
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
impl Backend for RedisBackend {
    /// One read of a key, however many services there are.
    async fn check(&self) -> Result<()> {
        const OP: &str = "redis: check";
        if let Some(heartbeats) = &self.heartbeats {
            return heartbeats.check(OP).await;
        }
        let list = self.layout.list();
        let look = Cmd::new().arg("ZRANGE").arg(&list).arg(0).arg(0).to_owned();
        let mut answer = self.client.command(OP, &list, &look).await?;
        answer.list().map(drop)
    }

    fn name(&self) -> &'static str {
        "redis"
    }

    fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>> {
        Some(Arc::clone(&self.registrar))
    }

    fn operator(self: Arc<Self>) -> Option<Arc<dyn Operator>> {
        // A heartbeat has no room for what operators say.
        if self.heartbeats.is_some() {
            return None;
        }
        let (client, layout) = (Arc::clone(&self.client), self.layout.clone());
        Some(Arc::new(RedisOperator::new(client, layout)))
    }

    fn elector(self: Arc<Self>) -> Option<AnyElector> {
        let (client, clock) = (Arc::clone(&self.client), Arc::clone(&self.clock));
        let elector = RedisElector::new(client, Arc::clone(&self.candidates), clock);
        Some(AnyElector::BestEffort(Arc::new(elector)))
    }

    async fn close(&self) -> Result<()> {
        self.client.signal.close();
        Ok(())
    }
}
