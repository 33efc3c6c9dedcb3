#![doc = include_str!("../README.md")]

mod backend;
mod change_feed;
mod check;
mod client;
mod codec;
mod config;
mod connection;
mod credentials;
mod election_keys;
mod elector;
mod entries;
mod entry;
mod error;
mod guarded;
mod instancer;
mod leader_watcher;
mod leases;
mod range;
mod registrar;
mod registration;
mod safety;
mod seat;
mod term;
mod version;
mod vigil;
mod watcher;

pub use crate::backend::{EtcdBackend, connect, connect_with};
pub use crate::codec::{DEFAULT_SCHEME, PATH, SCHEME};
pub use crate::config::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_ELECTION_PREFIX, DEFAULT_KEEP_ALIVE_INTERVAL,
    DEFAULT_KEEP_ALIVE_TIMEOUT, DEFAULT_PORT, DEFAULT_PREFIX, DEFAULT_REQUEST_TIMEOUT, EtcdConfig,
    Format, URL_SCHEME,
};
/// The client crate that a [guarded write](EtcdConfig::leads) is made with, in the version whose types it takes.
pub use etcd_client;
