#![doc = include_str!("../README.md")]

mod config;

mod client;

mod codec;
mod health_check;
mod key_values;
mod maintenance;
mod write_queue;

mod reading;

mod writing;

mod operating;

mod election;

mod backend;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

pub use crate::backend::{ConsulBackend, connect, connect_with};
pub use crate::codec::{DATACENTER, NODE};
pub use crate::config::ConsulConfig;
pub use crate::config::check_kind::CheckKind;
pub use crate::config::consistency::Consistency;
pub use crate::config::rules::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_DEREGISTER_CRITICAL_AFTER, DEFAULT_ELECTION_PREFIX,
    DEFAULT_ENDPOINT, DEFAULT_LOCK_DELAY, DEFAULT_MAX_STALE, DEFAULT_PORT, DEFAULT_REQUEST_TIMEOUT,
    DEFAULT_TLS_PORT, DEFAULT_WAIT, DEFAULT_ZONE_META, URL_SCHEMES,
};
pub use crate::election::guarded_write::{Leads, leads};
pub use crate::key_values::{KeyChange, KeyValue, change_keys, list_keys};
