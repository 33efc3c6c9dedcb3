//! What a backend's tests supply to the conformance suites.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::port::Ticket;
use sd_core::{
    Backend, ElectionName, Error, ErrorKind, Incarnation, RecordId, Result, ServiceName,
};

/// One store, its clients, and the acts that only an operator can do to it.
///
/// The optional acts return `Unsupported` by default. Cases that need them are then skipped, and the report names them.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// A new client of the store, as independent as a client in another process.
    async fn backend(&self) -> Result<Arc<dyn Backend>>;

    /// A time-to-live within the backend's limits that is short enough for a case to wait for its end.
    fn ttl(&self) -> Duration;

    /// A service name that no other test uses.
    fn service(&self) -> ServiceName {
        let name = format!("conformance-{}", Incarnation::random());
        match ServiceName::new(name) {
            Ok(name) => name,
            Err(error) => unreachable!("letters, digits and a dash are a name: {error:?}"),
        }
    }

    /// An election name that no other test uses.
    fn election(&self) -> ElectionName {
        let name = format!("conformance/{}", Incarnation::random());
        match ElectionName::new(name) {
            Ok(name) => name,
            Err(error) => unreachable!("letters, digits and a slash are a name: {error:?}"),
        }
    }

    /// A time-to-live of an entry, within the elector's limits, that is short enough for a case to wait for its end. Default
    /// [`ttl`](Self::ttl).
    fn election_ttl(&self) -> Duration {
        self.ttl()
    }

    /// How long a record or an entry may still be seen after its time-to-live has ended. Default 5 s.
    fn expiry_slack(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// How long a case may wait for a quiet feed. If the backend's own limits are longer, the case is skipped. Default 60 s.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// How many instances a large set has. Default 1000.
    fn big_set(&self) -> usize {
        1000
    }

    /// Whether readers learn that an instance was withdrawn on purpose. Default true.
    fn tells_withdrawals(&self) -> bool {
        true
    }

    /// Whether the source says in what order records were made. Default true.
    fn orders_records(&self) -> bool {
        true
    }

    /// Writes an entry into the service that cannot be read as an instance.
    async fn write_garbage(&self, service: &ServiceName) -> Result<()> {
        let _ = service;
        Err(Error::new(ErrorKind::Unsupported, "write garbage"))
    }

    /// Deletes a record without its owner, as an operator would.
    async fn remove_record(&self, record: &RecordId) -> Result<()> {
        let _ = record;
        Err(Error::new(ErrorKind::Unsupported, "remove record"))
    }

    /// Ends the lease or session of a record. If this is `Unsupported`, cases wait for the time-to-live to end.
    async fn expire(&self, record: &RecordId) -> Result<()> {
        let _ = record;
        Err(Error::new(ErrorKind::Unsupported, "expire record"))
    }

    /// Deletes a candidate's entry without its owner, as an operator would.
    async fn remove_entry(&self, ticket: &Ticket) -> Result<()> {
        let _ = ticket;
        Err(Error::new(ErrorKind::Unsupported, "remove entry"))
    }

    /// Ends the lease or session of a candidate's entry. If this is `Unsupported`, cases wait for the time-to-live to end.
    async fn expire_entry(&self, ticket: &Ticket) -> Result<()> {
        let _ = ticket;
        Err(Error::new(ErrorKind::Unsupported, "expire entry"))
    }

    /// How many entries of all clients an election has at the server.
    async fn entries(&self, election: &ElectionName) -> Result<usize> {
        let _ = election;
        Err(Error::new(ErrorKind::Unsupported, "count entries"))
    }
}
