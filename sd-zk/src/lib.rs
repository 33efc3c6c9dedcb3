#![doc = include_str!("../README.md")]

mod config;

mod client;
mod codec;

mod election;
mod operating;
mod reading;
mod writing;

mod backend;

pub use crate::backend::{ZkBackend, connect, connect_with};
pub use crate::codec::curator::PAYLOAD;
pub use crate::config::ZkConfig;
pub use crate::config::access::Access;
pub use crate::config::auth_scheme::AuthScheme;
pub use crate::config::election_format::ElectionFormat;
pub use crate::config::format::Format;
pub use crate::config::rules::{
    DEFAULT_ELECTION_PREFIX, DEFAULT_EXHIBITOR_INTERVAL, DEFAULT_EXHIBITOR_PORT, DEFAULT_PORT,
    DEFAULT_PREFIX, DEFAULT_REQUEST_TIMEOUT, DEFAULT_SESSION_TIMEOUT, URL_SCHEMES,
};
pub use crate::election::guarded_write::leads;
pub use sd_backend::gokit::{DEFAULT_SCHEME, PATH, SCHEME};
