#![doc = include_str!("../README.md")]

mod config;

mod client;
mod names;

mod reading;

mod backend;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

pub use crate::backend::{DnsBackend, connect, connect_with};
pub use crate::config::DnsConfig;
pub use crate::config::family::Family;
pub use crate::config::records::Records;
pub use crate::config::rules::{
    DEFAULT_KEEP_ABSENT, DEFAULT_MAX_INTERVAL, DEFAULT_MIN_INTERVAL, DEFAULT_NAME, DEFAULT_PORT,
    DEFAULT_TIMEOUT, DEFAULT_TLS_PORT, URL_SCHEMES,
};
pub use crate::config::transport::Transport;
pub use crate::reading::service_set::TARGET_KEY;
