//! What the test files share: the servers that were asked for, a prefix of one's own, and a raw client beside ours.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test file uses a part of this"
)]

pub(crate) mod election;
pub(crate) mod faults;

use std::time::Duration;

use sd_core::{Instance, Registry};
pub(crate) use sd_testing::{LONG, event, eventually, is_live_with, until};
use sd_testing::{ServerProcess, required_env};
use sd_zk::ZkConfig;
use server_programs::{LocalServer, ZooKeeper, ZooKeeperSession};
use tokio::task::spawn_blocking;
use zookeeper_client as zk;

/// The time-out of sessions, short enough to wait for its end. The client crate gives a connection up after two fifths of it, which a
/// server on a busy machine may take to answer.
pub(crate) const TTL: Duration = Duration::from_secs(8);

/// The server that `cargo xtask test` started.
pub(crate) fn server() -> String {
    required_env("SD_TEST_ZK").unwrap()
}

/// A server of one's own.
pub(crate) async fn own_server() -> ServerProcess<ZooKeeper> {
    own_server_with(|program| program).await
}

/// A server of one's own that is started in another way.
pub(crate) async fn own_server_with(
    change: impl FnOnce(ZooKeeper) -> ZooKeeper,
) -> ServerProcess<ZooKeeper> {
    let program = change(ZooKeeper::from_env().unwrap());
    ServerProcess::launch(program).await.unwrap()
}

/// A prefix that no other test uses.
pub(crate) fn prefix() -> String {
    format!("/sd-test-{:016x}", fastrand::u64(..))
}

pub(crate) fn config(prefix: &str) -> ZkConfig {
    config_at(&server(), prefix)
}

pub(crate) fn config_at(address: &str, prefix: &str) -> ZkConfig {
    ZkConfig::new([address])
        .with_prefix(prefix)
        .with_session_timeout(TTL)
}

pub(crate) fn registry(prefix: &str) -> Registry {
    sd_zk::connect(config(prefix)).unwrap()
}

pub(crate) fn registry_at(address: &str, prefix: &str) -> Registry {
    sd_zk::connect(config_at(address, prefix)).unwrap()
}

/// A client beside ours, whose session outlasts a busy machine.
pub(crate) async fn raw(address: &str) -> zk::Client {
    let connector = zk::Client::connector().with_session_timeout(Duration::from_secs(30));
    connector.connect(address).await.unwrap()
}

/// Lets go of a client, and returns when its session is closed.
pub(crate) async fn close(raw: zk::Client) {
    let mut states = raw.state_watcher();
    drop(raw);
    while !states.changed().await.is_terminated() {}
}

/// Ends a session of another client, as ZooKeeper does when it expires.
pub(crate) async fn end_session(address: &str, session: i64) {
    let address = address.parse().unwrap();
    let ended = spawn_blocking(move || ZooKeeperSession::expire(address, session));
    ended.await.unwrap().unwrap();
}

/// Makes a node and those above it.
pub(crate) async fn make(raw: &zk::Client, path: &str) {
    let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    raw.mkdir(path, &options).await.unwrap();
}

pub(crate) fn instance(port: u16) -> Instance {
    Instance::new("greeter", format!("10.0.0.1:{port}")).unwrap()
}
