//! What an operator does at ZooKeeper.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use server_programs::{ZooKeeper, ZooKeeperSession};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use zookeeper_client as zk;

use crate::Result;
use crate::history::Election;
use crate::operator::{Entry, Operator};

/// Where the elections of a run are kept.
pub(crate) const PREFIX: &str = "/chaos";

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Longer than any operator is at work.
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a session is ended that another member takes back meanwhile.
const ENDINGS: usize = 5;
/// The names of candidates' nodes end with this and a number that ZooKeeper has counted up.
pub(crate) const BEFORE_NUMBER: &str = "latch-";

/// The node whose children are an election's candidates.
pub(crate) fn candidates_of(election: Election) -> String {
    format!("{PREFIX}/{election}")
}

/// Which of these nodes leads.
pub(crate) fn first(nodes: &[String]) -> Option<&String> {
    nodes.iter().min_by_key(|node| number(node))
}

fn number(node: &str) -> Option<&str> {
    node.rsplit_once(BEFORE_NUMBER).map(|(_, number)| number)
}

/// A client with a session of its own, and four-letter words.
pub(crate) struct ZkOperator {
    client: zk::Client,
    server: SocketAddr,
}

impl ZkOperator {
    pub(crate) async fn connect(servers: &[SocketAddr]) -> Result<Self> {
        let server = *servers.first().ok_or("there is no ZooKeeper")?;
        let all: Vec<String> = servers.iter().map(ToString::to_string).collect();
        let connector = zk::Client::connector().with_session_timeout(SESSION_TIMEOUT);
        let client = timeout(ANSWER_WITHIN, connector.connect(&all.join(","))).await??;
        Ok(Self { client, server })
    }

    async fn candidates(&self, election: Election) -> Result<Vec<String>> {
        let folder = candidates_of(election);
        let listed = async {
            self.client.sync(&folder).await?;
            self.client.list_children(&folder).await
        };
        match timeout(ANSWER_WITHIN, listed).await? {
            Err(zk::Error::NoNode) => Ok(Vec::new()),
            listed => Ok(listed?),
        }
    }

    async fn find(&self, path: &str) -> Result<Option<zk::Stat>> {
        let found = async {
            self.client.sync(path).await?;
            self.client.check_stat(path).await
        };
        Ok(timeout(ANSWER_WITHIN, found).await??)
    }
}

/// Whether the server at this address leads its ensemble.
pub(crate) async fn leads_ensemble(server: SocketAddr) -> Result<bool> {
    let said = spawn_blocking(move || ZooKeeper::four_letter_word_at(server, "srvr")).await??;
    Ok(said.lines().any(|line| line == "Mode: leader"))
}

#[async_trait]
impl Operator for ZkOperator {
    async fn leader(&mut self, election: Election) -> Result<Option<Entry>> {
        loop {
            let candidates = self.candidates(election).await?;
            let Some(first) = first(&candidates) else {
                return Ok(None);
            };
            let key = format!("{}/{first}", candidates_of(election));
            // If it has gone meanwhile, another one leads.
            if let Some(stat) = self.find(&key).await? {
                return Ok(Some(Entry {
                    key,
                    lease: stat.ephemeral_owner.to_string(),
                    token: stat.czxid.cast_unsigned(),
                }));
            }
        }
    }

    async fn count(&mut self, election: Election) -> Result<usize> {
        Ok(self.candidates(election).await?.len())
    }

    async fn end_lease(&mut self, entry: &Entry) -> Result<bool> {
        let (server, session) = (self.server, entry.lease.parse()?);
        for _ in 0..ENDINGS {
            let expired = spawn_blocking(move || ZooKeeperSession::expire(server, session)).await?;
            match expired {
                // The last two: it follows no leader yet.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                    ) =>
                {
                    return Ok(false);
                }
                expired => expired?,
            }
            if self.find(&entry.key).await?.is_none() {
                return Ok(true);
            }
            // Its client was back at another member before the session was closed at ours, which then does nothing.
        }
        Err(format!("{} still exists after its session was ended", entry.key).into())
    }

    async fn delete(&mut self, entry: &Entry) -> Result<bool> {
        let deleted = self.client.delete(&entry.key, None);
        match timeout(ANSWER_WITHIN, deleted).await? {
            Ok(()) => Ok(true),
            Err(zk::Error::NoNode) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn version(&mut self) -> Result<String> {
        let server = self.server.to_string();
        let said = spawn_blocking(move || ZooKeeper::serving_at(&server)).await??;
        // `3.9.5-` and what it was built from.
        let version = said.split(['-', ',']).next().unwrap_or_default();
        Ok(version.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_candidate_with_the_lowest_number_leads_whatever_its_node_is_called() {
        for (names, lowest) in [
            (["_c_b-latch-0000000009", "_c_a-latch-0000000010"], 0),
            (["latch-0000000002", "latch-0000000001"], 1),
        ] {
            let nodes = names.map(str::to_owned);
            assert_eq!(first(&nodes), Some(&nodes[lowest]));
        }
        assert_eq!(first(&[]), None);
    }
}
