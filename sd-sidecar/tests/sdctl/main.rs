//! The built `sdctl`, as its users run it.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, in its helpers as well"
)]

mod command_line;
#[cfg(feature = "etcd")]
mod dead_etcd;
#[cfg(feature = "etcd")]
mod etcd;
mod running;
