//! The cases that every backend must pass, over a running Consul.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::operator::service_id;
use common::{Operator, TTL, config_at, server};
use sd_consul::{ConsulBackend, DEFAULT_ELECTION_PREFIX, DEFAULT_REQUEST_TIMEOUT};
use sd_core::port::{Ticket, async_trait};
use sd_core::{Backend, ElectionName, RecordId, Result, ServiceName};
use sd_testing::{Ability, Fixture, electing, operating, reading, writing};

/// The running Consul, and an operator beside the library.
struct Consul(Operator);

impl Consul {
    fn new() -> Self {
        Self(Operator::at(&server()))
    }

    /// The sessions of candidates whose names begin so.
    async fn sessions(&self, election: &ElectionName, candidate: &str) -> Vec<String> {
        let name = format!("{DEFAULT_ELECTION_PREFIX}/{election}/.entries/{candidate}");
        self.0.sessions(&name).await
    }
}

#[async_trait]
impl Fixture for Consul {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        // An agent with hundreds of services takes its time.
        let config = config_at(&server())
            .with_request_timeout(DEFAULT_REQUEST_TIMEOUT)
            .with_lock_delay(Duration::from_secs(1));
        Ok(Arc::new(ConsulBackend::new(config)?))
    }

    /// Each candidate has a session of its own.
    fn lacks(&self) -> Vec<Ability> {
        vec![
            Ability::Sessions,
            Ability::PermanentRecords,
            Ability::FairElections,
            Ability::ReadyOverrides,
        ]
    }

    fn ttl(&self) -> Duration {
        TTL
    }

    /// An agent writes a file for each registration. There is a test of its own with more.
    fn big_set(&self) -> usize {
        200
    }

    async fn write_garbage(&self, service: &ServiceName) -> Result<()> {
        // A service without a port cannot be dialled.
        self.0.register(service, "garbage", "").await;
        Ok(())
    }

    async fn remove_record(&self, record: &RecordId) -> Result<()> {
        self.0.remove(&record.service, &service_id(record)).await;
        Ok(())
    }

    /// The shortest that Consul grants.
    fn election_ttl(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// The session is all that there is of a candidate that waits.
    async fn remove_entry(&self, ticket: &Ticket) -> Result<()> {
        self.expire_entry(ticket).await
    }

    async fn expire_entry(&self, ticket: &Ticket) -> Result<()> {
        let candidate = format!("{}:", ticket.id);
        for session in self.sessions(&ticket.name, &candidate).await {
            self.0.destroy_session(&session).await;
        }
        Ok(())
    }

    async fn entries(&self, election: &ElectionName) -> Result<usize> {
        Ok(self.sessions(election, "").await.len())
    }

    async fn expire(&self, record: &RecordId) -> Result<()> {
        self.0.fail(record).await;
        Ok(())
    }
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn passes_all_reading_cases() {
    reading::run_all(&Consul::new()).await.expect_passed();
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn passes_all_writing_cases() {
    writing::run_all(&Consul::new()).await.expect_passed();
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn passes_all_electing_cases() {
    electing::run_all(&Consul::new()).await.expect_passed();
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn passes_all_operating_cases() {
    operating::run_all(&Consul::new()).await.expect_passed();
}
