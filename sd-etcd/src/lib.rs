#![doc = include_str!("../README.md")]

mod config;

mod client;
mod codec;

mod election;
mod operating;
mod reading;
mod writing;

mod backend;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

pub use crate::backend::{EtcdBackend, connect, connect_with};
pub use crate::config::EtcdConfig;
pub use crate::config::format::Format;
pub use crate::config::rules::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_ELECTION_PREFIX, DEFAULT_KEEP_ALIVE_INTERVAL,
    DEFAULT_KEEP_ALIVE_TIMEOUT, DEFAULT_PORT, DEFAULT_PREFIX, DEFAULT_READ_TIMEOUT,
    DEFAULT_REQUEST_TIMEOUT, URL_SCHEMES,
};
#[cfg(feature = "etcd-client")]
pub use crate::election::guarded_write::leads;
/// The client crate, in the version whose types [`leads`] takes.
#[cfg(feature = "etcd-client")]
pub use etcd_client;
pub use sd_backend::gokit::{DEFAULT_SCHEME, PATH, SCHEME};
