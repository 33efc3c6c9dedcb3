//! What the tests of elections share.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sd_core::port::{Standing, Ticket};
use sd_core::{Backend, ElectionName, Elector, Registry};
use sd_redis::{DEFAULT_ELECTION_PREFIX, DEFAULT_PREFIX, RedisBackend, RedisConfig};
pub(crate) use sd_testing::standings::{
    after, first, gone, leader_told, leads, now, told_at_last, waits,
};
use server_programs::Redis;
use tokio::task::spawn_blocking;

/// How long an entry lives without a confirmation.
pub(crate) const TTL: Duration = Duration::from_secs(2);
/// So that nothing expires while a test runs.
pub(crate) const LASTING: Duration = Duration::from_secs(5 * 60);
/// How soon is found what no message has told.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// One election prefix at one server, and electors that come and go.
pub(crate) struct Booth {
    pub(crate) prefix: String,
    pub(crate) backend: Arc<RedisBackend>,
    url: String,
}

impl Booth {
    /// At the server with this URL.
    pub(crate) fn at(url: &str) -> Self {
        let prefix = format!("sd-test-{:016x}", fastrand::u64(..));
        Self::again(url, &prefix)
    }

    /// At servers that no other test uses, where keys begin as they do by default.
    pub(crate) fn alone(url: &str) -> Self {
        Self::with(url, DEFAULT_ELECTION_PREFIX, |config| {
            config.with_prefix(DEFAULT_PREFIX)
        })
    }

    /// Another program's view of the same elections, perhaps over another way to the server.
    pub(crate) fn again(url: &str, prefix: &str) -> Self {
        Self::with(url, prefix, |config| config)
    }

    /// The same, with other settings.
    pub(crate) fn with(
        url: &str,
        prefix: &str,
        change: impl FnOnce(RedisConfig) -> RedisConfig,
    ) -> Self {
        let config = RedisConfig::from_url(url).unwrap();
        let config = config
            .with_prefix(format!("{prefix}-services"))
            .with_election_prefix(prefix)
            .with_poll_interval(POLL_INTERVAL)
            .with_keep_alive_interval(Duration::from_secs(1))
            .with_request_timeout(Duration::from_secs(2));
        Self {
            backend: Arc::new(RedisBackend::new(change(config)).unwrap()),
            prefix: prefix.to_owned(),
            url: url.to_owned(),
        }
    }

    pub(crate) fn registry(&self) -> Registry {
        Registry::new(Arc::<RedisBackend>::clone(&self.backend))
    }

    pub(crate) fn elector(&self) -> Arc<dyn Elector> {
        let elector = Arc::clone(&self.backend).elector().unwrap();
        elector.into_any()
    }

    /// A key of the election with the [`name`].
    pub(crate) fn key(&self, part: &str) -> String {
        key(&self.prefix, &name(), part)
    }

    /// What an operator does at the server, and gets.
    pub(crate) async fn ask(&self, words: &[&str]) -> String {
        self.try_ask(words).await.unwrap()
    }

    pub(crate) async fn try_ask(&self, words: &[&str]) -> io::Result<String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let url = self.url.clone();
        let asked = spawn_blocking(move || {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            Redis::ask_at(&url, &words)
        });
        asked.await.unwrap()
    }

    /// How many candidates the election with the [`name`] has at the server.
    pub(crate) async fn count(&self) -> usize {
        let count = self.ask(&["ZCARD", &self.key("order")]).await;
        count.parse().unwrap()
    }
}

/// An entry that was asked where it stands waits for a change.
#[track_caller]
pub(crate) fn is_waiting(standing: std::pin::Pin<&mut impl Future<Output = Standing>>) {
    let told = standing.now_or_never();
    assert!(told.is_none(), "{told:?}");
}

/// A part of what is kept of an election.
pub(crate) fn key(prefix: &str, name: &ElectionName, part: &str) -> String {
    format!("{prefix}:{{{name}}}:{part}")
}

pub(crate) fn name() -> ElectionName {
    ElectionName::new("reports/nightly").unwrap()
}

pub(crate) fn ticket(value: &str) -> Ticket {
    ticket_for(value, TTL)
}

pub(crate) fn ticket_for(value: &str, ttl: Duration) -> Ticket {
    Ticket::new(name(), value.as_bytes(), ttl)
}
