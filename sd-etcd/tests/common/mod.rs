//! What the test files share: the servers that were asked for, a prefix of one's own, and a raw client beside ours.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::time::Duration;

use etcd_client::{Client, GetOptions};
use sd_core::testing::required_env;
use sd_core::{Instance, RegisterOptions, Registry, State, Subscription};
use sd_etcd::EtcdConfig;

/// Longer than anything takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(20);
/// The shortest that etcd takes without rounding up, plus one.
pub(crate) const TTL: Duration = Duration::from_secs(3);

pub(crate) fn server() -> String {
    required_env("SD_TEST_ETCD").unwrap()
}

/// A prefix that no other test uses.
pub(crate) fn prefix() -> String {
    format!("/sd-test/{:016x}", fastrand::u64(..))
}

pub(crate) fn config(prefix: &str) -> EtcdConfig {
    EtcdConfig::new([server()]).with_prefix(prefix)
}

pub(crate) fn registry(prefix: &str) -> Registry {
    sd_etcd::connect(config(prefix)).unwrap()
}

pub(crate) async fn raw(url: &str) -> Client {
    Client::connect([url], None).await.unwrap()
}

pub(crate) fn instance(port: u16) -> Instance {
    Instance::new("greeter", format!("10.0.0.1:{port}")).unwrap()
}

pub(crate) fn short_lived() -> RegisterOptions {
    RegisterOptions::default().with_ttl(TTL)
}

pub(crate) async fn keys(raw: &mut Client, prefix: &str) -> Vec<String> {
    let answer = raw
        .get(
            prefix,
            Some(GetOptions::new().with_prefix().with_keys_only()),
        )
        .await
        .unwrap();
    let key = |kv: &etcd_client::KeyValue| kv.key_str().unwrap().to_owned();
    answer.kvs().iter().map(key).collect()
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
    match tokio::time::timeout(LONG, waiting).await {
        Ok(state) => state,
        Err(_) => panic!("not {what} within {LONG:?}: {:?}", subscription.state()),
    }
}
