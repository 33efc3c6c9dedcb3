//! What the tests of elections share.

use std::sync::Arc;
use std::time::Duration;

use sd_core::port::Ticket;
use sd_core::{Backend, ElectionName, Elector, Registry};
use sd_etcd::{EtcdBackend, EtcdConfig};
pub(crate) use sd_testing::standings::{
    after, first, gone, leader_told, leads, now, told_at_last, waits,
};

use super::{TTL, config_at, prefix};

/// One election prefix at one server, and electors that come and go.
pub(crate) struct Booth {
    pub(crate) prefix: String,
    pub(crate) backend: Arc<EtcdBackend>,
}

impl Booth {
    pub(crate) fn at(url: &str) -> Self {
        Self::again(url, &prefix())
    }

    /// Another program's view of the same elections, perhaps over another way to the server.
    pub(crate) fn again(url: &str, prefix: &str) -> Self {
        Self::with(url, prefix, |config| config)
    }

    pub(crate) fn with(
        url: &str,
        prefix: &str,
        set: impl FnOnce(EtcdConfig) -> EtcdConfig,
    ) -> Self {
        let config = config_at(url, &format!("{prefix}-services")).with_election_prefix(prefix);
        let config = set(config);
        Self {
            backend: Arc::new(EtcdBackend::new(config).unwrap()),
            prefix: prefix.to_owned(),
        }
    }

    pub(crate) fn registry(&self) -> Registry {
        Registry::new(Arc::<EtcdBackend>::clone(&self.backend))
    }

    pub(crate) fn elector(&self) -> Arc<dyn Elector> {
        let elector = Arc::clone(&self.backend).elector().unwrap();
        elector.into_strict().unwrap()
    }
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
