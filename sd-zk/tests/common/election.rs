//! What the tests of elections share.

use std::sync::Arc;
use std::time::Duration;

use sd_core::port::Ticket;
use sd_core::{Backend, ElectionName, Elector, Registry};
pub(crate) use sd_testing::standings::{
    after, first, gone, leader_told, leads, now, told_at_last, waits,
};
use sd_zk::{ZkBackend, ZkConfig};
use zookeeper_client as zk;

use super::{TTL, config_at, end_session, prefix};

/// One election prefix at one server, and electors that come and go.
pub(crate) struct Booth {
    pub(crate) prefix: String,
    pub(crate) backend: Arc<ZkBackend>,
}

impl Booth {
    pub(crate) fn at(address: &str) -> Self {
        Self::again(address, &prefix())
    }

    /// Another program's view of the same elections, perhaps over another way to the server.
    pub(crate) fn again(address: &str, prefix: &str) -> Self {
        Self::with(address, prefix, |config| config)
    }

    /// The same, with other settings.
    pub(crate) fn with(
        address: &str,
        prefix: &str,
        change: impl FnOnce(ZkConfig) -> ZkConfig,
    ) -> Self {
        let config = config_at(address, &format!("{prefix}-services"));
        let config = change(config.with_election_prefix(prefix));
        Self {
            backend: Arc::new(ZkBackend::new(config).unwrap()),
            prefix: prefix.to_owned(),
        }
    }

    pub(crate) fn registry(&self) -> Registry {
        Registry::new(Arc::<ZkBackend>::clone(&self.backend))
    }

    pub(crate) fn elector(&self) -> Arc<dyn Elector> {
        let elector = Arc::clone(&self.backend).elector().unwrap();
        elector.into_strict().unwrap()
    }

    /// Where the candidates of an election are.
    pub(crate) fn folder(&self, name: &ElectionName) -> String {
        folder(&self.prefix, name)
    }
}

pub(crate) fn folder(prefix: &str, name: &ElectionName) -> String {
    format!("{prefix}/{}", name.as_str().replace('/', "%2F"))
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

/// The paths of the candidates of an election, in the order of joining.
pub(crate) async fn candidates(raw: &zk::Client, folder: &str) -> Vec<String> {
    let mut nodes = match raw.list_children(folder).await {
        Err(zk::Error::NoNode) => Vec::new(),
        nodes => nodes.unwrap(),
    };
    nodes.sort_by_key(|node| node.rsplit_once("latch-").unwrap().1.to_owned());
    nodes
        .iter()
        .map(|node| format!("{folder}/{node}"))
        .collect()
}

/// The path of a ticket's node.
pub(crate) async fn node_of(raw: &zk::Client, folder: &str, ticket: &Ticket) -> Option<String> {
    let id = ticket.id.to_string();
    let (four, twelve) = id.split_at(4);
    let part = format!("-{four}-{twelve}-latch-");
    let mut all = candidates(raw, folder).await.into_iter();
    all.find(|path| path.contains(&part))
}

/// Ends the session that a node belongs to.
pub(crate) async fn expire_owner(raw: &zk::Client, address: &str, path: &str) {
    let owner = raw.check_stat(path).await.unwrap().unwrap().ephemeral_owner;
    end_session(address, owner).await;
}
