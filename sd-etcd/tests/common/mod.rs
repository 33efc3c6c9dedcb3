//! What the test files share: the servers that were asked for, a prefix of one's own, and a raw client beside ours.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test file uses a part of this"
)]

pub(crate) mod cluster;
pub(crate) mod election;
pub(crate) mod faults;
pub(crate) mod refusing;
pub(crate) mod served;

use std::time::Duration;

use etcd_client::{Client, EventType, GetOptions, KeyValue, WatchOptions};
use sd_core::{Instance, Registry};
use sd_etcd::EtcdConfig;
pub(crate) use sd_testing::{LONG, event, eventually, is_live_with, until};
use sd_testing::{ServerProcess, TcpProxy, required_env};
use server_programs::{Etcd, LocalServer};

/// Short, but longer than the shortest that etcd grants.
pub(crate) const TTL: Duration = Duration::from_secs(3);
/// How soon a registration must be back once the server answers, by contract TTL/3 + 2 s, with a second for a busy machine.
pub(crate) const BACK_WITHIN: Duration = Duration::from_secs(4);

/// The server that `cargo xtask test` started.
pub(crate) fn server() -> String {
    required_env("SD_TEST_ETCD").unwrap()
}

/// A server of one's own.
pub(crate) async fn own_server() -> ServerProcess<Etcd> {
    ServerProcess::launch(Etcd::from_env().unwrap())
        .await
        .unwrap()
}

/// A server of one's own behind a proxy, and the proxy's URL.
pub(crate) async fn own_server_behind_proxy() -> (ServerProcess<Etcd>, TcpProxy, String) {
    let server = own_server().await;
    let proxy = TcpProxy::start(server.program().address()).await.unwrap();
    let url = format!("http://{}", proxy.address());
    (server, proxy, url)
}

/// A prefix that no other test uses.
pub(crate) fn prefix() -> String {
    format!("/sd-test/{:016x}", fastrand::u64(..))
}

pub(crate) fn config(prefix: &str) -> EtcdConfig {
    config_at(&server(), prefix)
}

/// Notices a dead server soon.
pub(crate) fn config_at(url: &str, prefix: &str) -> EtcdConfig {
    EtcdConfig::new([url])
        .with_prefix(prefix)
        .with_keep_alive(Duration::from_secs(1), Duration::from_secs(1))
        .with_ttl(TTL)
}

pub(crate) fn registry(prefix: &str) -> Registry {
    sd_etcd::connect(config(prefix)).unwrap()
}

pub(crate) fn registry_at(url: &str, prefix: &str) -> Registry {
    sd_etcd::connect(config_at(url, prefix)).unwrap()
}

pub(crate) async fn raw(url: &str) -> Client {
    Client::connect([url], None).await.unwrap()
}

pub(crate) fn instance(port: u16) -> Instance {
    Instance::new("greeter", format!("10.0.0.1:{port}")).unwrap()
}

/// Everything under a prefix, as another client reads it.
pub(crate) async fn entries(raw: &mut Client, prefix: &str) -> Vec<KeyValue> {
    let options = GetOptions::new().with_prefix();
    let folder = format!("{prefix}/");
    raw.get(folder, Some(options)).await.unwrap().take_kvs()
}

pub(crate) async fn keys(raw: &mut Client, prefix: &str) -> Vec<String> {
    let entries = entries(raw, prefix).await;
    let key = |kv: &KeyValue| kv.key_str().unwrap().to_owned();
    entries.iter().map(key).collect()
}

/// How many leases the server holds.
pub(crate) async fn leases(raw: &mut Client) -> usize {
    raw.leases().await.unwrap().leases().len()
}

/// The server's revision.
pub(crate) async fn revision(raw: &mut Client) -> i64 {
    let answer = raw.get("none", None).await.unwrap();
    answer.header().unwrap().revision()
}

/// What happened under a prefix after a revision, as another client saw it.
pub(crate) async fn events_after(
    raw: &mut Client,
    prefix: &str,
    revision: i64,
) -> Vec<(EventType, String)> {
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(revision + 1);
    let mut stream = raw.watch(prefix, Some(options)).await.unwrap();
    // Everything before this mark has then been seen.
    let mark = format!("{prefix}-mark");
    raw.put(mark.as_str(), "", None).await.unwrap();
    let mut seen = Vec::new();
    loop {
        let answer = stream.message().await.unwrap().unwrap();
        assert!(!answer.canceled(), "{answer:?}");
        for event in answer.events() {
            let key = event.kv().unwrap().key_str().unwrap().to_owned();
            if key == mark {
                return seen;
            }
            seen.push((event.event_type(), key));
        }
    }
}
