//! What the test files share: the servers that were asked for, a prefix of one's own, and a raw client beside ours.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test file uses a part of this"
)]

pub(crate) mod authority;
pub(crate) mod election;
pub(crate) mod faults;
pub(crate) mod group;
pub(crate) mod refusing;
pub(crate) mod rights;

use std::time::Duration;

use futures_util::FutureExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue};
use sd_core::{Instance, RegistrationEvent, RegistrationGuard, Registry};
use sd_redis::RedisConfig;
pub(crate) use sd_testing::{LONG, event, eventually, is_live_with, until};
use sd_testing::{ServerProcess, TcpProxy, required_env};
use server_programs::{LocalServer, Redis};

/// Short, but longer than a pause of a busy machine.
pub(crate) const TTL: Duration = Duration::from_secs(3);
/// How soon a registration must be back once the server answers: by contract TTL/3 + 2 s, and the rest for a busy machine.
pub(crate) const BACK_WITHIN: Duration = Duration::from_secs(12);
/// How often readers ask what they were not told.
pub(crate) const POLL: Duration = Duration::from_millis(500);

/// The server that `cargo xtask test` started.
pub(crate) fn server() -> String {
    required_env("SD_TEST_REDIS").unwrap()
}

/// A server of one's own.
pub(crate) async fn own_server() -> ServerProcess<Redis> {
    own_server_with(|program| program).await
}

/// A server of one's own that is started in another way.
pub(crate) async fn own_server_with(change: impl FnOnce(Redis) -> Redis) -> ServerProcess<Redis> {
    let program = change(Redis::from_env().unwrap());
    ServerProcess::launch(program).await.unwrap()
}

/// A server of one's own behind a proxy, and the proxy's URL.
pub(crate) async fn own_server_behind_proxy() -> (ServerProcess<Redis>, TcpProxy, String) {
    let server = own_server().await;
    let proxy = TcpProxy::start(server.program().address()).await.unwrap();
    let url = format!("redis://{}", proxy.address());
    (server, proxy, url)
}

/// A prefix that no other test uses.
pub(crate) fn prefix() -> String {
    format!("sd-test-{:016x}", fastrand::u64(..))
}

pub(crate) fn config(prefix: &str) -> RedisConfig {
    config_at(&server(), prefix)
}

/// Notices a dead server, and what was not told, soon.
pub(crate) fn config_at(url: &str, prefix: &str) -> RedisConfig {
    RedisConfig::from_url(url)
        .unwrap()
        .with_prefix(prefix)
        .with_poll_interval(POLL)
        .with_keep_alive_interval(Duration::from_secs(1))
        .with_connect_timeout(Duration::from_secs(1))
        .with_request_timeout(Duration::from_secs(2))
        .with_ttl(TTL)
}

pub(crate) fn registry(prefix: &str) -> Registry {
    registry_at(&server(), prefix)
}

pub(crate) fn registry_at(url: &str, prefix: &str) -> Registry {
    sd_redis::connect(config_at(url, prefix)).unwrap()
}

pub(crate) fn instance(port: u16) -> Instance {
    Instance::new("greeter", format!("10.0.0.1:{port}")).unwrap()
}

/// What an operator does beside the library.
#[derive(Clone)]
pub(crate) struct Operator(MultiplexedConnection);

impl Operator {
    pub(crate) async fn at(url: &str) -> Self {
        let client = redis::Client::open(url).unwrap();
        let patient = AsyncConnectionConfig::new().set_response_timeout(Some(LONG));
        let connected = client.get_multiplexed_async_connection_with_config(&patient);
        Self(connected.await.unwrap())
    }

    /// One command, whose words may hold anything.
    pub(crate) async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).await.unwrap()
    }

    pub(crate) async fn try_ask<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut command = Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query_async(&mut self.0.clone()).await
    }

    /// The records of a service that live, as they are stored.
    pub(crate) async fn records(&self, prefix: &str, service: &str) -> Vec<String> {
        let (records, ends) = (
            key(prefix, service, "records"),
            key(prefix, service, "ends"),
        );
        let now: (u64, u64) = self.ask(&["TIME"]).await;
        let now = (now.0 * 1000 + now.1 / 1000).to_string();
        let ids: Vec<String> = self.ask(&["ZRANGEBYSCORE", &ends, &now, "+inf"]).await;
        let mut live = Vec::new();
        for id in ids {
            let value: Option<String> = self.ask(&["HGET", &records, &id]).await;
            live.extend(value.filter(|value| value.starts_with("live ")));
        }
        live
    }

    /// What the server has refused a user for lack of rights.
    pub(crate) async fn denied(&self) -> Vec<redis::Value> {
        self.ask(&["ACL", "LOG"]).await
    }

    /// How many changes a service has had.
    pub(crate) async fn version(&self, prefix: &str, service: &str) -> u64 {
        let state = key(prefix, service, "state");
        let version: Option<u64> = self.ask(&["HGET", &state, "version"]).await;
        version.unwrap_or_default()
    }

    /// How often the server has carried out a command.
    pub(crate) async fn calls(&self, command: &str) -> u64 {
        let stats: String = self.ask(&["INFO", "commandstats"]).await;
        let begin = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&begin));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    }
}

/// What the owner of a registration was told since it was last asked.
pub(crate) fn told(guard: &mut RegistrationGuard) -> Vec<RegistrationEvent> {
    let events = std::iter::from_fn(|| guard.next_event().now_or_never().flatten());
    events.collect()
}

pub(crate) fn key(prefix: &str, service: &str, part: &str) -> String {
    format!("{prefix}:{{{service}}}:{part}")
}
