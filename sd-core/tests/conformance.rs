//! The embedded registry passes all conformance suites.

use std::sync::Arc;
use std::time::Duration;

use sd_core::memory::Memory;
use sd_core::port::{Ticket, async_trait};
use sd_core::{Backend, ElectionName, RecordId, Result};
use sd_testing::{Ability, Fixture, electing, operating, reading, writing};

#[derive(Default)]
struct Embedded(Memory);

#[async_trait]
impl Fixture for Embedded {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(self.0.backend()))
    }

    /// Everything in it was written as an instance, so nothing is unreadable.
    fn lacks(&self) -> Vec<Ability> {
        vec![
            Ability::UnreadableEntries,
            Ability::Sessions,
            Ability::PermanentRecords,
        ]
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn remove_record(&self, record: &RecordId) -> Result<()> {
        self.0.operator().remove(record);
        Ok(())
    }

    async fn remove_entry(&self, ticket: &Ticket) -> Result<()> {
        self.0.operator().remove_entry(&ticket.name, ticket.id);
        Ok(())
    }

    async fn entries(&self, election: &ElectionName) -> Result<usize> {
        Ok(self.0.operator().entries(election).len())
    }
}

#[tokio::test(start_paused = true)]
async fn the_embedded_registry_passes_all_reading_cases() {
    reading::run_all(&Embedded::default()).await.expect_passed();
}

#[tokio::test(start_paused = true)]
async fn the_embedded_registry_passes_all_writing_cases() {
    writing::run_all(&Embedded::default()).await.expect_passed();
}

#[tokio::test(start_paused = true)]
async fn the_embedded_registry_passes_all_electing_cases() {
    electing::run_all(&Embedded::default())
        .await
        .expect_passed();
}

#[tokio::test(start_paused = true)]
async fn the_embedded_registry_passes_all_operating_cases() {
    operating::run_all(&Embedded::default())
        .await
        .expect_passed();
}
