#![doc = include_str!("../README.md")]

#[cfg(feature = "client")]
pub mod agent;
#[cfg(feature = "checks")]
pub mod checks;
#[cfg(feature = "daemon")]
pub mod daemon;
#[cfg(any(feature = "config-service", feature = "daemon"))]
pub mod open_files;
#[cfg(any(feature = "config-service", feature = "daemon"))]
pub mod systemd;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "wire")]
pub mod wire;
