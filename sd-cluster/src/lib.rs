#![doc = include_str!("../README.md")]

mod config;

mod etp;
mod protocol;

mod client;
mod codec;
mod instrument;

mod module;
mod reading;
mod writing;

mod backend;

#[cfg(feature = "server")]
pub mod server;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod scripted;

pub use crate::backend::{ClusterBackend, connect, connect_with};
pub use crate::codec::{ENDPOINTS, LIB_VERSION, REQUIRED_MODULES, TRANSPORT};
pub use crate::config::ClusterConfig;
pub use crate::config::rules::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_HANDSHAKE_TIMEOUT, DEFAULT_PING_INTERVAL, DEFAULT_PORT,
    DEFAULT_VERSION, URL_SCHEMES,
};
pub use crate::config::transport::Transport;
pub use crate::instrument::{CONFIG_REJECTED, CONFIGS, SESSION, SESSIONS};
pub use crate::module::handle::{Module, module};
pub use crate::module::health::{ConfigHealth, ModuleHealth, SessionHealth};
pub use crate::module::offline::OfflineModule;
pub use crate::module::remote_config::{DEFAULT_CONFIG_TIMEOUT, Received, RemoteConfig};
pub use crate::module::routes_receiver::{DEFAULT_ROUTES_TIMEOUT, RoutesReceiver};
pub use crate::module::secret_words::{SecretWords, hide_secrets};
pub use crate::protocol::address::AddressConfiguration;
pub use crate::protocol::declaration::{BackendDeclaration, MetricsAutodiscovery, RoutingConfig};
pub use crate::protocol::endpoint::{EndpointDescriptor, REQUIRED_ADMIN_PERMISSION};
pub use crate::protocol::events;
pub use crate::protocol::requirements::ModuleDependency;
