//! What the tests of elections share.

use std::sync::Arc;
use std::time::Duration;

use sd_consul::{ConsulBackend, ConsulConfig};
use sd_core::{
    Backend, ElectionName, Elector, Entry, Error, ErrorKind, FencingToken, Predecessor, Standing,
    Ticket,
};
use serde_json::Value;
use tokio::time::timeout;

use super::{LONG, Operator, config_at};

/// The shortest that Consul grants.
pub(crate) const SESSION_TTL: Duration = Duration::from_secs(10);
/// So that nothing expires while a test runs.
pub(crate) const LASTING: Duration = Duration::from_mins(5);

/// One election prefix at one Consul, and electors that come and go.
pub(crate) struct Booth {
    pub(crate) config: ConsulConfig,
    pub(crate) prefix: String,
    pub(crate) backend: Arc<ConsulBackend>,
}

impl Booth {
    pub(crate) fn at(url: &str) -> Self {
        Self::again(url, &prefix())
    }

    /// Another program's view of the same elections, perhaps over another way to Consul.
    pub(crate) fn again(url: &str, prefix: &str) -> Self {
        Self::with(url, prefix, |config| config)
    }

    pub(crate) fn with(
        url: &str,
        prefix: &str,
        set: impl FnOnce(ConsulConfig) -> ConsulConfig,
    ) -> Self {
        let config = config_at(url)
            .with_election_prefix(prefix)
            .with_lock_delay(Duration::from_secs(1));
        let config = set(config);
        Self {
            backend: Arc::new(ConsulBackend::new(config.clone()).unwrap()),
            config,
            prefix: prefix.to_owned(),
        }
    }

    pub(crate) fn elector(&self) -> Arc<dyn Elector> {
        let elector = Arc::clone(&self.backend).elector().unwrap();
        elector.into_strict().unwrap()
    }

    /// The key whose lock is the lead.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}/.leader", self.prefix, name())
    }

    /// What an operator reads there.
    pub(crate) async fn leader(&self, operator: &Operator) -> Value {
        let (status, mut found) = operator
            .read(&format!("/v1/kv/{}?consistent", self.key()))
            .await;
        if status == 404 {
            Value::Null
        } else {
            found[0].take()
        }
    }

    /// The ids of the candidates' sessions.
    pub(crate) async fn sessions(&self, operator: &Operator) -> Vec<String> {
        operator.sessions(&format!("{}/", self.prefix)).await
    }
}

/// A prefix that no other test uses.
pub(crate) fn prefix() -> String {
    format!("sd-test-{:016x}", fastrand::u64(..))
}

pub(crate) fn name() -> ElectionName {
    ElectionName::new("reports/nightly").unwrap()
}

/// For an entry that outlives the test without confirmations.
pub(crate) fn ticket(value: &str) -> Ticket {
    ticket_for(value, LASTING)
}

pub(crate) fn ticket_for(value: &str, ttl: Duration) -> Ticket {
    Ticket::new(name(), value.as_bytes(), ttl)
}

/// The token and what was before, of an entry that is first.
pub(crate) fn first(standing: Standing) -> (FencingToken, Predecessor) {
    match standing {
        Standing::First { token, before } => (token, before),
        other => panic!("not first: {other:?}"),
    }
}

pub(crate) fn gone(standing: Standing) -> Error {
    match standing {
        Standing::Gone(error) => error,
        other => panic!("not gone: {other:?}"),
    }
}

/// What an entry says at once.
pub(crate) async fn now(entry: &dyn Entry) -> Standing {
    timeout(LONG, entry.standing(None)).await.unwrap().unwrap()
}

pub(crate) async fn after(entry: &dyn Entry, seen: &Standing) -> Standing {
    let told = timeout(LONG, entry.standing(Some(seen))).await;
    told.unwrap().unwrap()
}

/// What an entry says in the end, whatever kept it from being known meanwhile.
pub(crate) async fn told_at_last(entry: &dyn Entry, seen: &Standing) -> Standing {
    let asking = async {
        loop {
            match entry.standing(Some(seen)).await {
                Ok(standing) => return standing,
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout),
                    "{}",
                    error.report()
                ),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, asking).await.unwrap()
}

/// The token of an entry that leads.
pub(crate) async fn leads(entry: &dyn Entry) -> FencingToken {
    first(now(entry).await).0
}

pub(crate) async fn waits(entry: &dyn Entry) -> Standing {
    let standing = now(entry).await;
    assert!(matches!(standing, Standing::Waiting { .. }), "{standing:?}");
    standing
}
