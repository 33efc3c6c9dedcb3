//! The cases that every backend must pass, over a running Redis or Valkey.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Operator, TTL, config, key, prefix, server};
use redis::RedisError;
use sd_core::port::async_trait;
use sd_core::{Backend, Error, ErrorKind, RecordId, Result, ServiceName};
use sd_redis::RedisBackend;
use sd_testing::{Ability, Fixture, operating, reading, writing};

/// A prefix of its own in the running server, and an operator beside the library.
struct Prefix {
    prefix: String,
    operator: Operator,
}

impl Prefix {
    async fn new() -> Self {
        Self {
            prefix: prefix(),
            operator: Operator::at(&server()).await,
        }
    }

    fn key(&self, service: &ServiceName, part: &str) -> String {
        key(&self.prefix, service.as_str(), part)
    }

    async fn ask(&self, words: &[&str]) -> Result<()> {
        let asked = self.operator.try_ask::<i64>(words).await;
        asked.map(drop).map_err(failed)
    }
}

fn failed(error: RedisError) -> Error {
    Error::new(ErrorKind::Unavailable, "operator").with_source(error)
}

#[async_trait]
impl Fixture for Prefix {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(RedisBackend::new(config(&self.prefix))?))
    }

    fn lacks(&self) -> Vec<Ability> {
        vec![
            Ability::Sessions,
            Ability::PermanentRecords,
            Ability::StrictElections,
        ]
    }

    fn ttl(&self) -> Duration {
        TTL
    }

    async fn write_garbage(&self, service: &ServiceName) -> Result<()> {
        let records = self.key(service, "records");
        self.ask(&["HSET", &records, "garbage", "{not json"]).await
    }

    async fn remove_record(&self, record: &RecordId) -> Result<()> {
        let records = self.key(&record.service, "records");
        self.ask(&["HDEL", &records, record.id.as_str()]).await
    }

    async fn expire(&self, record: &RecordId) -> Result<()> {
        let ends = self.key(&record.service, "ends");
        self.ask(&["ZADD", &ends, "XX", "1", record.id.as_str()])
            .await
    }
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn passes_all_reading_cases() {
    reading::run_all(&Prefix::new().await).await.expect_passed();
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn passes_all_writing_cases() {
    writing::run_all(&Prefix::new().await).await.expect_passed();
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn passes_all_operating_cases() {
    operating::run_all(&Prefix::new().await)
        .await
        .expect_passed();
}
