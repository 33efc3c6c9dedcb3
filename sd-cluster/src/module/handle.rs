//! What a registry has beside services and records: the module that its process is.

use std::sync::Arc;

use sd_backend::backend_of;
use sd_core::{Registry, Result};

use crate::backend::ClusterBackend;
use crate::client::Client;
use crate::module::health::ModuleHealth;

/// The module that the process of a registry is: how its session and its configuration are. From [`module`]. A cheap clone.
#[derive(Clone, Debug)]
pub struct Module {
    client: Arc<Client>,
}

/// The module that the process of `registry` is. Begins its session, if the configuration has a receiver or a required module; outside of
/// a runtime, the first use on one does.
///
/// # Errors
/// `InvalidInput` if the registry is over another backend.
pub fn module(registry: &Registry) -> Result<Module> {
    const OP: &str = "cluster: module";
    let backend: &ClusterBackend = backend_of(OP, registry, "sd_cluster::connect")?;
    backend.keep();
    Ok(Module {
        client: Arc::clone(&backend.client),
    })
}

impl Module {
    /// How its session and its configuration are, without asking the service.
    pub fn health(&self) -> ModuleHealth {
        self.client.state.health(self.client.clock.now())
    }

    /// Waits until the session is established, the configuration is applied, and each required module is known, with an instance if
    /// [`with_await_required`](crate::ClusterConfig::with_await_required) asks for that. Registrations of the module wait for the same.
    /// Waits for as long as it takes: the caller bounds the time. Without a receiver and a required module it returns at once.
    ///
    /// # Errors
    /// `Closed` if the registry was closed.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn ready(&self) -> Result<()> {
        self.client.ready("cluster: await readiness").await
    }
}
