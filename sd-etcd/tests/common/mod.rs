//! What the test files share: the servers that were asked for, a prefix of one's own, and a raw client beside ours.

#![allow(dead_code, reason = "each test file uses a part of this")]

pub(crate) mod election;

use std::future::Future;
use std::time::Duration;

use etcd_client::{Client, EventType, GetOptions, KeyValue, WatchOptions};
use sd_core::testing::{EtcdProgram, EtcdServer, TcpProxy, required_env};
use sd_core::{
    Instance, RegisterOptions, RegistrationEvent, RegistrationGuard, Registry, State, Subscription,
};
use sd_etcd::EtcdConfig;
use tokio::time::{Instant, timeout};

/// Longer than anything takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// Short, but longer than the shortest that etcd grants.
pub(crate) const TTL: Duration = Duration::from_secs(3);
/// How soon a registration must be back once the server answers, by contract TTL/3 + 2 s, with a second for a busy machine.
pub(crate) const BACK_WITHIN: Duration = Duration::from_secs(4);

/// The server that `cargo xtask test` started.
pub(crate) fn server() -> String {
    required_env("SD_TEST_ETCD").unwrap()
}

/// A server of one's own.
pub(crate) async fn own_server() -> EtcdServer {
    EtcdServer::launch(EtcdProgram::from_env().unwrap())
        .await
        .unwrap()
}

/// A server of one's own behind a proxy, and the proxy's URL.
pub(crate) async fn own_server_behind_proxy() -> (EtcdServer, TcpProxy, String) {
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

pub(crate) fn ttl(ttl: Duration) -> RegisterOptions {
    RegisterOptions::default().with_ttl(ttl)
}

/// Everything under a prefix, read by somebody else.
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

/// What happened under a prefix after a revision, as somebody else saw it.
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

/// Waits until a subscription's state is as wanted.
pub(crate) async fn until(
    subscription: &mut Subscription,
    what: &str,
    wanted: impl Fn(&State) -> bool,
) -> State {
    let waiting = async {
        let mut state = subscription.state_and_mark_seen();
        while !wanted(&state) {
            state = subscription.changed().await.unwrap();
        }
        state
    };
    timeout(LONG, waiting)
        .await
        .unwrap_or_else(|_| panic!("not {what} within {LONG:?}: {:?}", subscription.state()))
}

pub(crate) fn is_live_with(count: usize) -> impl Fn(&State) -> bool {
    move |state| state.status().as_str() == "live" && state.snapshot().len() == count
}

pub(crate) fn is_stale(state: &State) -> bool {
    state.status().as_str() == "stale"
}

/// Waits for an event of this name, and returns all until then.
pub(crate) async fn event(guard: &mut RegistrationGuard, name: &str) -> Vec<RegistrationEvent> {
    let mut seen = Vec::new();
    let waiting = async {
        while let Some(event) = guard.next_event().await {
            let found = event.as_str() == name;
            seen.push(event);
            if found {
                return true;
            }
        }
        false
    };
    let found = timeout(LONG, waiting).await;
    assert_eq!(found, Ok(true), "no {name} event, but {seen:?}");
    seen
}

/// Asks again until it is so.
pub(crate) async fn eventually<F: Future<Output = bool>>(
    what: &str,
    limit: Duration,
    mut is_so: impl FnMut() -> F,
) -> Duration {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < limit, "not {what} within {limit:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}
