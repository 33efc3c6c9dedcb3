//! The writing port of the embedded registry.

use std::sync::Arc;

use async_trait::async_trait;

use super::MemoryBackend;
use super::store::Store;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::model::instance::{Instance, RecordId};
use crate::port::registrar::{Attempt, Limits, Liveness, Registrar, Registration, Renewed};

#[async_trait]
impl Registrar for MemoryBackend {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn record_bytes(&self, record: &Instance) -> Result<usize> {
        let json = serde_json::to_vec(record);
        Ok(json
            .map_err(|error| Error::invalid_input("memory: register", error.to_string()))?
            .len())
    }

    async fn register(
        &self,
        record: &Instance,
        attempt: &Attempt,
    ) -> Result<Box<dyn Registration>> {
        self.check_open("memory: register")?;
        self.store.register(record, attempt.ttl, self.clock.now())?;
        Ok(Box::new(MemoryRegistration {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            record: record.record_id(),
            liveness: Liveness::Lease { ttl: attempt.ttl },
        }))
    }

    async fn withdraw(&self, record: &RecordId) -> Result<()> {
        self.check_open("memory: withdraw")?;
        self.store.withdraw(record);
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryRegistration {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    record: RecordId,
    liveness: Liveness,
}

#[async_trait]
impl Registration for MemoryRegistration {
    fn liveness(&self) -> Liveness {
        self.liveness
    }

    async fn renew(&self) -> Result<Renewed> {
        self.store.renew(&self.record, self.clock.now())
    }

    async fn update(&self, record: &Instance) -> Result<()> {
        self.store.update(record, self.clock.now())
    }

    /// The embedded registry reports a loss only when it is asked.
    async fn lost(&self) -> Error {
        std::future::pending().await
    }
}
