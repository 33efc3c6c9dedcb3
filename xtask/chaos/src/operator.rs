//! What an operator does at the servers, past the proxies, with a plain client.

mod consul;
mod etcd;
mod redis;
mod zk;

use async_trait::async_trait;

use crate::Result;
use crate::history::Election;

pub(crate) use self::consul::{ConsulKv, ConsulOperator, ConsulSession, PREFIX as CONSUL_PREFIX};
pub(crate) use self::etcd::{EtcdOperator, PREFIX as ETCD_PREFIX, entries_of as etcd_entries_of};
pub(crate) use self::redis::{
    NAIVE_LOCK as REDIS_NAIVE_LOCK, NAIVE_TOKEN as REDIS_NAIVE_TOKEN, PREFIX as REDIS_PREFIX,
    RedisOperator,
};
pub(crate) use self::zk::{
    BEFORE_NUMBER as ZK_BEFORE_NUMBER, PREFIX as ZK_PREFIX, ZkOperator,
    candidates_of as zk_candidates_of, first as zk_first, leads_ensemble as leads_zk_ensemble,
};

/// The entry that leads, as it is at the server.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    key: String,
    /// The lease or session that keeps it.
    lease: String,
    pub(crate) token: u64,
}

/// Who may do everything at a server.
#[async_trait]
pub(crate) trait Operator: Send {
    /// Who leads; `None` while no candidate does.
    async fn leader(&mut self, election: Election) -> Result<Option<Entry>>;

    /// How many candidates have something at the server.
    async fn count(&mut self, election: Election) -> Result<usize>;

    /// Ends what keeps the entry. False if that had ended already.
    async fn end_lease(&mut self, entry: &Entry) -> Result<bool>;

    /// Deletes the entry; what keeps it lives on. False if it had gone already.
    async fn delete(&mut self, entry: &Entry) -> Result<bool>;

    /// What the server says of itself.
    async fn version(&mut self) -> Result<String>;
}
