//! What a configuration opens: one cluster with its ports.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use sd_core::clock::{BootClock, Clock};
use sd_core::port::AnyElector;
use sd_core::sync::lock;
use sd_core::{Backend, Registrar, Registry, RegistryConfig, Result};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use crate::client::Client;
use crate::config::ClusterConfig;
use crate::module::keeper::keep;
use crate::writing::registrar::ClusterRegistrar;

/// Opens a registry over a cluster of isp modules. Does not wait for a config service, and needs no runtime: the first use connects, or
/// this call, if it is on a runtime and the configuration has a receiver or a required module. Reads the files that `config` names, and
/// blocks while it does, for no longer than the connect timeout.
///
/// # Errors
/// `InvalidInput` names the setting that is wrong or whose file cannot be read.
pub fn connect(config: ClusterConfig) -> Result<Registry> {
    connect_with(config, RegistryConfig::default())
}

/// Like [`connect`], with settings for subscriptions and registrations. The time-to-live of registrations is that after which a silent
/// connection is over: three ping intervals.
///
/// # Errors
/// Like [`connect`].
pub fn connect_with(config: ClusterConfig, mut registry: RegistryConfig) -> Result<Registry> {
    let backend = ClusterBackend::with_clock(config, Arc::clone(&registry.clock))?;
    registry.registration.ttl = backend.client.config().silent_after();
    backend.keep();
    Ok(Registry::with_config(Arc::new(backend), registry))
}

/// One cluster, seen as one of its modules. Most programs use a [`Registry`] over it instead, from [`connect`].
#[derive(Debug)]
pub struct ClusterBackend {
    pub(crate) client: Arc<Client>,
    registrar: Arc<ClusterRegistrar>,
    keeper: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl ClusterBackend {
    /// A backend over the cluster that `config` names. Does not wait for a service. Reads files as [`connect`] does, and blocks while it
    /// does.
    ///
    /// # Errors
    /// Like [`connect`].
    pub fn new(config: ClusterConfig) -> Result<Self> {
        Self::with_clock(config, Arc::new(BootClock))
    }

    /// As [`new`](Self::new), but measures the age of sets with `clock`.
    ///
    /// # Errors
    /// Like [`connect`].
    pub fn with_clock(config: ClusterConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        let client = Arc::new(Client::new(config, clock)?);
        Ok(Self {
            registrar: Arc::new(ClusterRegistrar::new(Arc::clone(&client))),
            client,
            keeper: Mutex::default(),
        })
    }

    /// Sees to it that a session is kept, if anything is wanted of one by itself. The task is on the runtime that first needs it, and on
    /// another one when that has ended.
    pub(crate) fn keep(&self) {
        if !self.client.config().is_kept()
            || self.client.signal.is_closed()
            || Handle::try_current().is_err()
        {
            return;
        }
        let mut keeper = lock(&self.keeper);
        if keeper.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
            let task = tokio::spawn(keep(Arc::clone(&self.client)));
            *keeper = Some(AbortOnDropHandle::new(task));
        }
    }
}

#[async_trait]
impl Backend for ClusterBackend {
    /// That there is a session, or can be one.
    async fn check(&self) -> Result<()> {
        const OP: &str = "cluster: check";
        self.keep();
        self.client.session(OP).await.map(drop)
    }

    fn name(&self) -> &'static str {
        "cluster"
    }

    fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>> {
        self.keep();
        let registrar: Arc<dyn Registrar> = Arc::<ClusterRegistrar>::clone(&self.registrar);
        Some(registrar)
    }

    /// The protocol has nothing by which modules could agree on one of them: no lease, no condition, no order.
    fn elector(self: Arc<Self>) -> Option<AnyElector> {
        None
    }

    async fn close(&self) -> Result<()> {
        tokio::join!(self.client.close(), async {
            self.client.signal.closed("cluster: close").await;
            self.registrar.close().await;
        });
        lock(&self.keeper).take();
        Ok(())
    }
}
