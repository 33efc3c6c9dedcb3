//! How the real servers that tests need are started and reached, and whether they serve: each said once, for `cargo xtask`, for
//! `cargo xtask chaos` and for the tests of all crates.
//!
//! To add a server, add a file beside `etcd.rs` with an `impl` [`LocalServer`] and what this server alone has: members,
//! sentinels, a check in its own protocol. Where its program comes from is the business of `xtask/src/servers`.
//!
//! With the feature `testing`, each is a `ServerProgram` of `sd-testing`: `ServerProcess::launch(Etcd::from_env()?)`.

#![expect(
    clippy::disallowed_types,
    reason = "plain blocking code: there is no clock to pause"
)]

mod consul;
mod etcd;
pub mod http;
mod json;
mod knot;
mod local_server;
mod moto;
mod redis;
mod redis_cluster;
mod redis_protocol;
mod tcp;
#[cfg(feature = "testing")]
pub mod testing;
mod zookeeper;
mod zookeeper_session;

pub use self::consul::Consul;
pub use self::etcd::{Etcd, EtcdMember};
pub use self::knot::Knot;
pub use self::local_server::LocalServer;
pub use self::moto::Moto;
pub use self::redis::Redis;
pub use self::zookeeper::ZooKeeper;
pub use self::zookeeper_session::{Allowed, ZooKeeperSession};
