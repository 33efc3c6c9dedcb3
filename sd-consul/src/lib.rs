#![doc = include_str!("../README.md")]

mod backend;

mod config;

mod reading;

mod writing;

mod election;

mod codec;
mod health_check;
mod write_queue;

mod client;

pub use crate::backend::{ConsulBackend, connect, connect_with};
pub use crate::codec::{DATACENTER, NODE};
pub use crate::config::{
    CheckKind, Consistency, ConsulConfig, DEFAULT_CONNECT_TIMEOUT,
    DEFAULT_DEREGISTER_CRITICAL_AFTER, DEFAULT_ELECTION_PREFIX, DEFAULT_ENDPOINT,
    DEFAULT_LOCK_DELAY, DEFAULT_MAX_STALE, DEFAULT_PORT, DEFAULT_REQUEST_TIMEOUT, DEFAULT_TLS_PORT,
    DEFAULT_WAIT, DEFAULT_ZONE_META, URL_SCHEME,
};
pub use crate::election::guarded_write::Leads;
