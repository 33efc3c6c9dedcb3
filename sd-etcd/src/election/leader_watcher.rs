//! The feed of who leads an election: watch from now on, read all candidates, then apply what the watch tells.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::KeyValue;
use sd_backend::ToldLeader;
use sd_core::clock::Clock;
use sd_core::port::{Leader, LeaderFeed, LeaderWatcher};
use sd_core::{FencingToken, Result};

use crate::client::Client;
use crate::client::change_feed::ChangeFeed;
use crate::client::range::read_range;
use crate::election::keys::ElectionKeys;

const OP: &str = "etcd: observe election";

/// One election, followed.
#[derive(Debug)]
pub(crate) struct EtcdLeaderWatcher {
    clock: Arc<dyn Clock>,
    keys: ElectionKeys,
    feed: ChangeFeed,
    queue: Queue,
    told: ToldLeader,
}

/// The candidates by their keys.
#[derive(Debug, Default)]
struct Queue(BTreeMap<Vec<u8>, Queued>);

#[derive(Debug)]
struct Queued {
    created: i64,
    value: Arc<[u8]>,
}

impl Queue {
    /// Takes an entry as it is now.
    fn put(&mut self, entry: &KeyValue) {
        let queued = Queued {
            created: entry.create_revision(),
            value: entry.value().into(),
        };
        self.0.insert(entry.key().to_vec(), queued);
    }

    fn delete(&mut self, key: &[u8]) {
        self.0.remove(key);
    }

    /// The oldest candidate leads.
    fn leader(&self, keys: &ElectionKeys, domain: String) -> Option<Leader> {
        let (key, oldest) = self.0.iter().min_by_key(|(_, queued)| queued.created)?;
        let token = FencingToken::new(domain, oldest.created.max(0).cast_unsigned());
        Some(Leader::new(
            keys.id_of(key),
            Arc::clone(&oldest.value),
            token,
        ))
    }
}

impl EtcdLeaderWatcher {
    pub(crate) async fn open(
        client: &Arc<Client>,
        clock: &Arc<dyn Clock>,
        keys: ElectionKeys,
    ) -> Result<Self> {
        let mut feed = ChangeFeed::open(client, OP, keys.entries()).await?;
        let as_of = clock.now();
        let (queue, position) =
            read_range(client, OP, keys.entries(), Queue::default, Queue::put).await?;
        feed.skip_to(position)?;
        let leader = queue.leader(&keys, position.domain());
        Ok(Self {
            clock: Arc::clone(clock),
            keys,
            feed,
            queue,
            told: ToldLeader::untold(leader, as_of),
        })
    }
}

#[async_trait]
impl LeaderWatcher for EtcdLeaderWatcher {
    async fn next(&mut self) -> Result<LeaderFeed> {
        if let Some(first) = self.told.first() {
            return Ok(first);
        }
        let news = self.feed.next().await?;
        let queue = &mut self.queue;
        self.feed.take(&news, |entry| {
            // `Event::event_type` would panic on a type that it does not know.
            if entry.version() == 0 {
                queue.delete(entry.key());
            } else {
                queue.put(entry);
            }
        })?;
        let as_of = self.clock.now();
        let leader = self.queue.leader(&self.keys, self.feed.position().domain());
        Ok(self.told.news(leader, as_of))
    }

    fn silence_limit(&self) -> Duration {
        self.feed.silence_limit()
    }
}
