//! What the tests of elections share.

use std::sync::Arc;
use std::time::Duration;

use sd_consul::{ConsulBackend, ConsulConfig};
use sd_core::port::Ticket;
use sd_core::{Backend, ElectionName, Elector, Registry};
pub(crate) use sd_testing::standings::{
    after, first, gone, leader_told, leads, now, told_at_last, waits,
};
use serde_json::Value;

use super::{Operator, config_at};

/// The shortest that Consul grants.
pub(crate) const SESSION_TTL: Duration = Duration::from_secs(10);
/// So that nothing expires while a test runs.
pub(crate) const LASTING: Duration = Duration::from_secs(300);

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

    pub(crate) fn registry(&self) -> Registry {
        Registry::new(Arc::<ConsulBackend>::clone(&self.backend))
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
