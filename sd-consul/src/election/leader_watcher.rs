//! The feed of who leads an election: read its key, then ask again and again, each time waiting until it may have changed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_backend::ToldLeader;
use sd_core::clock::Clock;
use sd_core::port::{Leader, LeaderFeed, LeaderWatcher};
use sd_core::{Error, ErrorKind, Result};

use crate::client::Client;
use crate::client::blocking_queries::Waiter;
use crate::client::kv::KvEntry;
use crate::election::keys::ElectionKeys;
use crate::election::leader_record::leader;
use crate::election::token_domain;

const OP: &str = "consul: observe election";
/// How much longer than the longest query a feed may be silent: until it is its turn.
const SLACK: Duration = Duration::from_secs(5);

/// One election, followed.
#[derive(Debug)]
pub(crate) struct ConsulLeaderWatcher {
    client: Arc<Client>,
    clock: Arc<dyn Clock>,
    keys: ElectionKeys,
    waiter: Waiter,
    /// `None` until there was an election.
    domain: Option<String>,
    /// Where to wait from.
    index: u64,
    told: ToldLeader,
}

impl ConsulLeaderWatcher {
    pub(crate) async fn open(
        client: Arc<Client>,
        clock: Arc<dyn Clock>,
        keys: ElectionKeys,
    ) -> Result<Self> {
        let as_of = clock.now();
        let (found, meta) = client.kv_get(OP, keys.leader()).await?;
        let mut watcher = Self {
            waiter: client.waiter(),
            client,
            clock,
            keys,
            domain: None,
            index: meta.index,
            told: ToldLeader::untold(None, as_of),
        };
        let leader = watcher.read(found.as_ref()).await?;
        watcher.told = ToldLeader::untold(leader, as_of);
        Ok(watcher)
    }

    async fn read(&mut self, found: Option<&KvEntry>) -> Result<Option<Leader>> {
        let Some(found) = found.filter(|found| !found.session.is_empty()) else {
            return Ok(None);
        };
        if self.domain.is_none() {
            self.domain = token_domain::find(&self.client, OP, &self.keys).await?;
        }
        // Another program that leads in its own way may have been the first.
        Ok(leader(found, self.domain.as_deref().unwrap_or_default()))
    }
}

#[async_trait]
impl LeaderWatcher for ConsulLeaderWatcher {
    async fn next(&mut self) -> Result<LeaderFeed> {
        if let Some(first) = self.told.first() {
            return Ok(first);
        }
        let waiting = self.client.kv_wait(
            OP,
            &self.waiter,
            self.keys.leader(),
            self.index,
            Duration::MAX,
        );
        let (found, meta) = waiting.await?;
        if meta.index < self.index {
            return Err(Error::new(ErrorKind::Outdated, OP).because(
                "Consul's servers were restored to an earlier state, or lost their data",
            ));
        }
        let leader = self.read(found.as_ref()).await?;
        self.index = meta.index;
        Ok(self.told.news(leader, self.clock.now()))
    }

    fn silence_limit(&self) -> Duration {
        self.client.longest_query() + SLACK
    }
}
