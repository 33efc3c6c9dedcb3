//! The cases that every backend must pass, over a running etcd.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{TTL, config, keys, prefix, raw, server};
use etcd_client::Client;
use sd_core::port::{Ticket, async_trait};
use sd_core::{Backend, ElectionName, Error, ErrorKind, RecordId, Result, ServiceName};
use sd_etcd::EtcdBackend;
use sd_testing::{Ability, Fixture, electing, operating, reading, writing};

/// A prefix of its own in the running etcd, and an operator beside the library.
struct Prefix {
    prefix: String,
    operator: Client,
}

impl Prefix {
    async fn new() -> Self {
        Self {
            prefix: prefix(),
            operator: raw(&server()).await,
        }
    }

    fn key(&self, record: &RecordId) -> String {
        format!("{}/{}/{}", self.prefix, record.service, record.id)
    }

    fn elections(&self) -> String {
        format!("{}-elections", self.prefix)
    }

    fn entry(&self, ticket: &Ticket) -> String {
        format!(
            "{}/{}/.entries/{}",
            self.elections(),
            ticket.name,
            ticket.id
        )
    }

    async fn delete(&self, key: String) -> Result<()> {
        let deleted = self.operator.clone().delete(key, None).await;
        deleted.map(drop).map_err(failed)
    }

    async fn revoke_lease_of(&self, key: String) -> Result<()> {
        let mut operator = self.operator.clone();
        let found = operator.get(key, None).await.map_err(failed)?;
        for entry in found.kvs() {
            let revoked = operator.lease_revoke(entry.lease()).await;
            revoked.map_err(failed)?;
        }
        Ok(())
    }
}

fn failed(error: etcd_client::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "operator").with_source(error)
}

#[async_trait]
impl Fixture for Prefix {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        let config = config(&self.prefix).with_election_prefix(self.elections());
        Ok(Arc::new(EtcdBackend::new(config)?))
    }

    fn lacks(&self) -> Vec<Ability> {
        vec![Ability::Sessions, Ability::PermanentRecords]
    }

    fn ttl(&self) -> Duration {
        TTL
    }

    async fn write_garbage(&self, service: &ServiceName) -> Result<()> {
        let key = format!("{}/{service}/garbage", self.prefix);
        let put = self.operator.clone().put(key, "{not json", None).await;
        put.map(drop).map_err(failed)
    }

    async fn remove_record(&self, record: &RecordId) -> Result<()> {
        self.delete(self.key(record)).await
    }

    async fn expire(&self, record: &RecordId) -> Result<()> {
        self.revoke_lease_of(self.key(record)).await
    }

    async fn remove_entry(&self, ticket: &Ticket) -> Result<()> {
        self.delete(self.entry(ticket)).await
    }

    async fn expire_entry(&self, ticket: &Ticket) -> Result<()> {
        self.revoke_lease_of(self.entry(ticket)).await
    }

    async fn entries(&self, election: &ElectionName) -> Result<usize> {
        let folder = format!("{}/{election}/.entries", self.elections());
        Ok(keys(&mut self.operator.clone(), &folder).await.len())
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn passes_all_reading_cases() {
    reading::run_all(&Prefix::new().await).await.expect_passed();
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn passes_all_writing_cases() {
    writing::run_all(&Prefix::new().await).await.expect_passed();
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn passes_all_electing_cases() {
    electing::run_all(&Prefix::new().await)
        .await
        .expect_passed();
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn passes_all_operating_cases() {
    operating::run_all(&Prefix::new().await)
        .await
        .expect_passed();
}
