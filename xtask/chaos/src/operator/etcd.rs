//! What an operator does at etcd.

use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Client, CompactionOptions, ConnectOptions, GetOptions, SortOrder, SortTarget};
use tokio::time::timeout;

use crate::Result;
use crate::history::Election;
use crate::operator::{Entry, Operator};

/// Where the elections of a run are kept.
pub(crate) const PREFIX: &str = "/chaos";

const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The keys of an election's candidates begin so, and end with the id of their lease, in hexadecimal.
pub(crate) fn entries_of(election: Election) -> String {
    format!("{PREFIX}/{election}/.entries/")
}

/// A client with a connection of its own to some members.
pub(crate) struct EtcdOperator {
    client: Client,
}

impl EtcdOperator {
    pub(crate) async fn connect(urls: &[String]) -> Result<Self> {
        let options = ConnectOptions::new()
            .with_connect_timeout(ANSWER_WITHIN)
            .with_timeout(ANSWER_WITHIN);
        let client = timeout(ANSWER_WITHIN, Client::connect(urls, Some(options))).await??;
        Ok(Self { client })
    }

    /// Forgets all history up to now, after making some.
    ///
    /// # Errors
    /// It can still be read, too.
    pub(crate) async fn compact(&mut self) -> Result<()> {
        const WRITES: usize = 20;
        let mut revision = 0;
        for _ in 0..WRITES {
            let put = self
                .client
                .put(format!("{PREFIX}/.history"), "", None)
                .await?;
            revision = put
                .header()
                .map_or(revision, etcd_client::ResponseHeader::revision);
        }
        let physically = CompactionOptions::new().with_physical();
        self.client.compact(revision, Some(physically)).await?;
        let before = GetOptions::new().with_revision(revision - 1);
        match self.client.get(PREFIX, Some(before)).await {
            Err(error) if says(&error, "has been compacted") => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Err("the compacted history can still be read".into()),
        }
    }

    /// Whether the server that is asked is its cluster's raft leader.
    pub(crate) async fn is_raft_leader(&mut self) -> Result<bool> {
        let status = self.client.status().await?;
        let member = status.header().map(etcd_client::ResponseHeader::member_id);
        Ok(member == Some(status.leader()))
    }
}

#[async_trait]
impl Operator for EtcdOperator {
    async fn leader(&mut self, election: Election) -> Result<Option<Entry>> {
        let oldest = GetOptions::new()
            .with_prefix()
            .with_sort(SortTarget::Create, SortOrder::Ascend)
            .with_limit(1);
        let answer = self.client.get(entries_of(election), Some(oldest)).await?;
        let Some(entry) = answer.kvs().first() else {
            return Ok(None);
        };
        Ok(Some(Entry {
            key: entry.key_str()?.to_owned(),
            lease: entry.lease().to_string(),
            token: entry.create_revision().cast_unsigned(),
        }))
    }

    async fn count(&mut self, election: Election) -> Result<usize> {
        let count = GetOptions::new().with_prefix().with_count_only();
        let answer = self.client.get(entries_of(election), Some(count)).await?;
        Ok(usize::try_from(answer.count())?)
    }

    async fn end_lease(&mut self, entry: &Entry) -> Result<bool> {
        match self.client.lease_revoke(entry.lease.parse()?).await {
            Ok(_) => Ok(true),
            Err(error) if says(&error, "lease not found") => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn delete(&mut self, entry: &Entry) -> Result<bool> {
        let answer = self.client.delete(entry.key.as_str(), None).await?;
        Ok(answer.deleted() > 0)
    }

    async fn version(&mut self) -> Result<String> {
        Ok(self.client.status().await?.version().to_owned())
    }
}

/// Whether the server answered with an error that says this.
fn says(error: &etcd_client::Error, what: &str) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.message().contains(what))
}
