#![doc = include_str!("../README.md")]

#[cfg(feature = "client")]
pub mod agent;
#[cfg(feature = "checks")]
pub mod checks;
#[cfg(feature = "daemon")]
pub mod daemon;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "wire")]
pub mod wire;
