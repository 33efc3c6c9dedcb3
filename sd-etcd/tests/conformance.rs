//! The cases that every backend must pass, over a running etcd.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{TTL, config, prefix, raw, server};
use etcd_client::Client;
use sd_core::testing::{Fixture, reading, writing};
use sd_core::{Backend, Error, ErrorKind, RecordId, Result, ServiceName, async_trait};
use sd_etcd::EtcdBackend;

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
}

fn failed(error: etcd_client::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "operator").with_source(error)
}

#[async_trait]
impl Fixture for Prefix {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(EtcdBackend::new(config(&self.prefix))?))
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
        let key = self.key(record);
        let deleted = self.operator.clone().delete(key, None).await;
        deleted.map(drop).map_err(failed)
    }

    async fn expire(&self, record: &RecordId) -> Result<()> {
        let mut operator = self.operator.clone();
        let found = operator.get(self.key(record), None).await.map_err(failed)?;
        for record in found.kvs() {
            operator
                .lease_revoke(record.lease())
                .await
                .map_err(failed)?;
        }
        Ok(())
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn passes_all_reading_cases() {
    reading::run_all(&Prefix::new().await)
        .await
        .expect_passed_but_skipped(&[]);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn passes_all_writing_cases() {
    writing::run_all(&Prefix::new().await)
        .await
        .expect_passed_but_skipped(&[]);
}
