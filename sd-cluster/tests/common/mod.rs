//! A config service of this crate, for tests of its clients.

#![allow(dead_code, reason = "not every test file uses everything")]

pub(crate) mod slow_link;

use std::net::SocketAddr;
use std::time::Duration;

use sd_cluster::ClusterConfig;
use sd_cluster::server::ConfigService;
use sd_core::{Incarnation, Instance, Registry};

/// Short, so that no test waits for long, and long enough for a busy machine.
pub(crate) const PING: Duration = Duration::from_millis(500);
/// After which silence a connection is over.
pub(crate) const SILENT: Duration = Duration::from_millis(1500);

/// A running service. It stops when this is dropped.
pub(crate) struct Cluster {
    pub(crate) service: ConfigService,
    pub(crate) address: SocketAddr,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::with_ping(PING).await
    }

    /// A service that pings its clients so often.
    pub(crate) async fn with_ping(every: Duration) -> Self {
        let service = ConfigService::builder().ping_every(every).start().await;
        let service = service.unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = service.listen(any).await.unwrap();
        Self { service, address }
    }

    /// Settings of a client.
    pub(crate) fn config(&self) -> ClusterConfig {
        config_at(self.address)
    }

    /// A client as users have it.
    pub(crate) fn registry(&self) -> Registry {
        sd_cluster::connect(self.config()).unwrap()
    }
}

/// Settings of a client of the module `reader`.
pub(crate) fn config_at(address: SocketAddr) -> ClusterConfig {
    ClusterConfig::new([address.to_string()])
        .with_module("reader")
        .with_ping_interval(PING)
}

/// The name of a module that no other test uses.
pub(crate) fn module() -> String {
    format!("greeter-{}", Incarnation::random())
}

/// An instance of a module, at a port.
pub(crate) fn instance(module: &str, port: u16) -> Instance {
    Instance::new(module, format!("10.0.0.1:{port}")).unwrap()
}
