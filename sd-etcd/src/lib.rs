#![doc = include_str!("../README.md")]

mod config;

mod client;
mod codec;

mod election;
mod reading;
mod writing;

mod backend;

pub use crate::backend::{EtcdBackend, connect, connect_with};
pub use crate::codec::gokit::{DEFAULT_SCHEME, PATH, SCHEME};
pub use crate::config::EtcdConfig;
pub use crate::config::format::Format;
pub use crate::config::rules::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_ELECTION_PREFIX, DEFAULT_KEEP_ALIVE_INTERVAL,
    DEFAULT_KEEP_ALIVE_TIMEOUT, DEFAULT_PORT, DEFAULT_PREFIX, DEFAULT_REQUEST_TIMEOUT, URL_SCHEMES,
};
/// The client crate for [guarded writes](EtcdConfig::leads), in the version whose types they take.
pub use etcd_client;
