//! The config service over real connections: bytes as any peer may send them, its file, its API for operators, and modules in Go.

#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod admin;
mod beside_isp_kit;
mod closing;
mod crowded;
#[cfg(feature = "server-sqlite")]
mod file;
mod go_modules;
#[path = "../go_peer/mod.rs"]
mod go_peer;
mod http;
#[cfg(feature = "server-sqlite")]
mod killed;
mod messages;
mod raw;
mod secrets;
mod services;
mod silence;
mod tls;
mod upgrading;

use services::{service, started, until, until_gone, within};
