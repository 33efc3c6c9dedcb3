//! The local agent: its API in this process over the embedded registry, and its program over real servers.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, in its helpers as well"
)]

mod answering;
mod api;
mod bodies;
mod checks;
mod client;
mod common;
mod discovery;
#[cfg(target_os = "linux")]
mod ending;
#[cfg(all(target_os = "linux", any(feature = "etcd", feature = "consul")))]
mod frozen;
mod golden;
mod leftovers;
mod legacy;
#[cfg(target_os = "linux")]
mod limits;
#[cfg(target_os = "linux")]
mod process;
mod readers;
mod registrations;
#[cfg(target_os = "linux")]
mod reload;
#[cfg(feature = "consul")]
mod routes;
#[cfg(target_os = "linux")]
mod security;
mod servers;
mod state_names;
mod store;
mod streams;
#[cfg(target_os = "linux")]
mod tls;
#[cfg(all(target_os = "linux", feature = "zk"))]
mod zk;
