#![doc = include_str!("../README.md")]

mod backend;
mod check;
mod client;
mod codec;
mod config;
mod connection;
mod credentials;
mod entries;
mod error;
mod instancer;
mod registrar;
mod registration;
mod watcher;

pub use crate::backend::{EtcdBackend, connect, connect_with};
pub use crate::codec::{DEFAULT_SCHEME, PATH, SCHEME};
pub use crate::config::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_KEEP_ALIVE_INTERVAL, DEFAULT_KEEP_ALIVE_TIMEOUT, DEFAULT_PORT,
    DEFAULT_PREFIX, DEFAULT_REQUEST_TIMEOUT, EtcdConfig, Format, URL_SCHEME,
};
