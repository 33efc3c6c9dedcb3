//! A feed of who leads one election of the embedded registry.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::client::Client;
use super::{ALIVE_EVERY, check_open};
use crate::error::Result;
use crate::model::name::ElectionName;
use crate::port::elector::{Leader, LeaderFeed, LeaderWatcher};

#[derive(Debug)]
pub(super) struct MemoryLeaderWatcher {
    client: Client,
    name: ElectionName,
    /// `None` only when it is dropped.
    leadership: Option<watch::Receiver<()>>,
    answered: bool,
    told: Option<Leader>,
}

impl MemoryLeaderWatcher {
    pub(super) fn open(client: Client, name: &ElectionName) -> Self {
        let leadership = Some(client.elections.leadership(name));
        Self {
            client,
            name: name.clone(),
            leadership,
            answered: false,
            told: None,
        }
    }
}

#[async_trait]
impl LeaderWatcher for MemoryLeaderWatcher {
    async fn next(&mut self) -> Result<LeaderFeed> {
        let Client {
            elections,
            clock,
            closed,
        } = &self.client;
        let alive_at = clock.now() + ALIVE_EVERY;
        loop {
            check_open(closed, "memory: observe election")?;
            let now = clock.now();
            let leading = elections.leader(&self.name, now);
            let look_again = leading.as_ref().map(|(_, expires)| *expires);
            let leader = leading.map(|(leader, _)| leader);
            if !self.answered || self.told != leader {
                self.answered = true;
                self.told.clone_from(&leader);
                return Ok(LeaderFeed::Leader { leader, as_of: now });
            }
            if now >= alive_at {
                return Ok(LeaderFeed::Alive { as_of: now });
            }
            let wake = look_again.map_or(alive_at, |end| end.min(alive_at));
            let changed = async {
                match &mut self.leadership {
                    Some(leadership) => leadership.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = closed.cancelled() => {}
                // The sender lives as long as this receiver: `forget` comes after it.
                _ = changed => {}
                () = clock.sleep_until(wake) => {}
            }
        }
    }

    fn silence_limit(&self) -> Duration {
        ALIVE_EVERY * 3
    }
}

impl Drop for MemoryLeaderWatcher {
    fn drop(&mut self) {
        self.leadership = None;
        self.client.elections.forget(&self.name);
    }
}
