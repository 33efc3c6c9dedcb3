#![doc = include_str!("../README.md")]

mod config;

mod client;
mod codec;
mod heartbeats;
mod records;
mod scripts;

mod election;
mod operating;
mod reading;
mod writing;

mod backend;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

pub use crate::backend::{RedisBackend, connect, connect_with};
pub use crate::config::RedisConfig;
pub use crate::config::format::Format;
pub use crate::config::rules::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_ELECTION_PREFIX, DEFAULT_HEARTBEAT_TTL,
    DEFAULT_KEEP_ALIVE_INTERVAL, DEFAULT_POLL_INTERVAL, DEFAULT_PORT, DEFAULT_PREFIX,
    DEFAULT_PRIMARY, DEFAULT_REQUEST_TIMEOUT, DEFAULT_SENTINEL_PORT, DEFAULT_USER, URL_SCHEMES,
};
pub use crate::config::topology::Topology;
pub use crate::election::guarded_write::{LeaderGuard, TERM_OVER, leads};
