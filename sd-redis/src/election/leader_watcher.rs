//! The feed of who leads an election: read when something was told, when the leader's lease may have ended, and now and then.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_backend::ToldLeader;
use sd_core::clock::Clock;
use sd_core::port::{Leader, LeaderFeed, LeaderWatcher};
use sd_core::{FencingToken, Result};
use tokio::time::{Instant, sleep_until};

use crate::client::Client;
use crate::election::candidate::LEASE_SLACK;
use crate::election::changes::Changes;
use crate::election::keys::ElectionKeys;
use crate::election::scripts;

const OP: &str = "redis: observe election";
/// How often a quiet feed asks whether the server is there.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// One election, followed.
#[derive(Debug)]
pub(crate) struct RedisLeaderWatcher {
    client: Arc<Client>,
    clock: Arc<dyn Clock>,
    keys: ElectionKeys,
    changes: Changes,
    /// When to read although nothing was told.
    read_again: Instant,
    told: ToldLeader,
}

impl RedisLeaderWatcher {
    pub(crate) async fn open(
        client: Arc<Client>,
        clock: Arc<dyn Clock>,
        keys: ElectionKeys,
    ) -> Result<Self> {
        client.signal.check_open(OP)?;
        let changes = Changes::follow(&client, &keys).await?;
        let as_of = clock.now();
        let mut watcher = Self {
            client,
            clock,
            keys,
            changes,
            read_again: Instant::now(),
            told: ToldLeader::untold(None, as_of),
        };
        let leader = watcher.read().await?;
        watcher.told = ToldLeader::untold(leader, as_of);
        Ok(watcher)
    }

    async fn read(&mut self) -> Result<Option<Leader>> {
        let keys = self.keys.queue();
        let mut said = self.client.run(OP, &scripts::OBSERVE, &keys, &[]).await?;
        let (mut leader, mut again) = (None, self.every());
        if said.text()? == "leader" {
            // Another program's entry may be called anything.
            let id = said.bytes()?;
            let id = std::str::from_utf8(&id).ok().and_then(|id| id.parse().ok());
            let (token, domain) = (said.number()?, said.text()?);
            let token = FencingToken::new(domain, token);
            leader = Some(Leader::new(id, said.bytes()?, token));
            // Another program's lease may end at any time that a score can say.
            if let Ok(left) = said.number() {
                again = again.min(Duration::from_micros(left) + LEASE_SLACK);
            }
        }
        self.read_again = Instant::now() + again;
        Ok(leader)
    }

    fn every(&self) -> Duration {
        self.client.config().poll_interval.min(ALIVE_EVERY)
    }
}

#[async_trait]
impl LeaderWatcher for RedisLeaderWatcher {
    async fn next(&mut self) -> Result<LeaderFeed> {
        self.client.signal.check_open(OP)?;
        if let Some(first) = self.told.first() {
            return Ok(first);
        }
        // What was told is not to be lost with a dropped call: it is read at once by the next one.
        tokio::select! {
            told = self.changes.next(OP) => {
                told?;
                self.read_again = Instant::now();
            }
            () = sleep_until(self.read_again) => {}
        }
        let as_of = self.clock.now();
        let leader = self.read().await?;
        Ok(self.told.news(leader, as_of))
    }

    /// A quiet feed says so this often. The rest is for the request and a busy machine.
    fn silence_limit(&self) -> Duration {
        self.every() + self.client.config().request_timeout * 2
    }
}
