#![doc = include_str!("../README.md")]

mod agent;
mod answer;
mod backend;
mod check;
mod client;
mod codec;
mod config;
mod connection;
mod credentials;
mod domain;
mod election_keys;
mod elector;
mod entries;
mod entry;
mod error;
mod guarded;
mod health;
mod health_check;
mod history;
mod instancer;
mod kv;
mod lead;
mod leader_watcher;
mod pace;
mod records;
mod registrar;
mod registration;
mod safety;
mod seat;
mod serial;
mod sessions;
mod term;
mod turns;
mod watcher;

pub use crate::backend::{ConsulBackend, connect, connect_with};
pub use crate::codec::{DATACENTER, NODE};
pub use crate::config::{
    CheckKind, Consistency, ConsulConfig, DEFAULT_CONNECT_TIMEOUT,
    DEFAULT_DEREGISTER_CRITICAL_AFTER, DEFAULT_ELECTION_PREFIX, DEFAULT_ENDPOINT,
    DEFAULT_LOCK_DELAY, DEFAULT_MAX_STALE, DEFAULT_PORT, DEFAULT_REQUEST_TIMEOUT, DEFAULT_TLS_PORT,
    DEFAULT_WAIT, DEFAULT_ZONE_META, URL_SCHEME,
};
pub use crate::guarded::Leads;
