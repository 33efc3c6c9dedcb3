//! The cases that every backend must pass, over a running ZooKeeper.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{TTL, config, end_session, make, prefix, raw, server};
use sd_core::port::async_trait;
use sd_core::{Backend, Error, ErrorKind, RecordId, Result, ServiceName};
use sd_testing::{Ability, Fixture, operating, reading, writing};
use sd_zk::ZkBackend;
use zookeeper_client as zk;

/// A prefix of its own in the running ZooKeeper, and an operator beside the library.
struct Prefix {
    prefix: String,
    operator: zk::Client,
}

impl Prefix {
    async fn new() -> Self {
        Self {
            prefix: prefix(),
            operator: raw(&server()).await,
        }
    }

    fn path(&self, record: &RecordId) -> String {
        format!("{}/{}/{}", self.prefix, record.service, record.id)
    }
}

fn failed(error: zk::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "operator").with_source(error)
}

#[async_trait]
impl Fixture for Prefix {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(ZkBackend::new(config(&self.prefix))?))
    }

    fn lacks(&self) -> Vec<Ability> {
        vec![Ability::Leases, Ability::PermanentRecords, Ability::Release]
    }

    fn ttl(&self) -> Duration {
        TTL
    }

    async fn write_garbage(&self, service: &ServiceName) -> Result<()> {
        let folder = format!("{}/{service}", self.prefix);
        make(&self.operator, &folder).await;
        let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
        let path = format!("{folder}/garbage");
        let made = self.operator.create(&path, b"{not json", &options).await;
        made.map(drop).map_err(failed)
    }

    async fn remove_record(&self, record: &RecordId) -> Result<()> {
        let deleted = self.operator.delete(&self.path(record), None).await;
        deleted.map_err(failed)
    }

    async fn expire(&self, record: &RecordId) -> Result<()> {
        let stat = self.operator.check_stat(&self.path(record)).await;
        if let Some(stat) = stat.map_err(failed)? {
            end_session(&server(), stat.ephemeral_owner).await;
        }
        Ok(())
    }
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn passes_all_reading_cases() {
    reading::run_all(&Prefix::new().await).await.expect_passed();
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn passes_all_writing_cases() {
    writing::run_all(&Prefix::new().await).await.expect_passed();
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn passes_all_operating_cases() {
    operating::run_all(&Prefix::new().await)
        .await
        .expect_passed();
}
