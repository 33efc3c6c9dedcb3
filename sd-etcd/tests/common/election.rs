//! What the tests of elections share.

use std::sync::Arc;
use std::time::Duration;

use sd_core::{
    Backend, ElectionName, Elector, Entry, Error, ErrorKind, FencingToken, Predecessor, Standing,
    Ticket,
};
use sd_etcd::{EtcdBackend, EtcdConfig};
use tokio::time::timeout;

use super::{LONG, TTL, config_at, prefix};

/// One election prefix at one server, and electors that come and go.
pub(crate) struct Booth {
    pub(crate) config: EtcdConfig,
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
            backend: Arc::new(EtcdBackend::new(config.clone()).unwrap()),
            config,
            prefix: prefix.to_owned(),
        }
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
    timeout(LONG, entry.standing(Some(seen)))
        .await
        .unwrap()
        .unwrap()
}

/// The token of an entry that leads.
pub(crate) async fn leads(entry: &dyn Entry) -> FencingToken {
    first(now(entry).await).0
}

/// The standing of an entry that waits.
pub(crate) async fn waits(entry: &dyn Entry) -> Standing {
    let standing = now(entry).await;
    assert!(matches!(standing, Standing::Waiting { .. }), "{standing:?}");
    standing
}

/// Asks again after each error until the standing is another one, as the library's caller does.
pub(crate) async fn told_at_last(entry: &dyn Entry, seen: &Standing) -> Standing {
    loop {
        match entry.standing(Some(seen)).await {
            Ok(standing) => return standing,
            Err(error) => {
                let is_open = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout);
                assert!(is_open, "{}", error.report());
            }
        }
        tokio::task::yield_now().await;
    }
}
