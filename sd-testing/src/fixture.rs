//! What a backend's tests supply to the conformance suites.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::port::Ticket;
use sd_core::{
    Backend, ElectionName, Error, ErrorKind, Incarnation, RecordId, Result, ServiceName,
};

/// One store, its clients, and what only somebody beside the library can do to it.
///
/// The optional acts answer `Unsupported` by default: the cases that need them are then skipped, and named as such.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// A new client of the store; each is as independent as one of another process.
    async fn backend(&self) -> Result<Arc<dyn Backend>>;

    /// A time-to-live that a case can wait for to pass, within the backend's limits.
    fn ttl(&self) -> Duration;

    /// The name of a service that nobody else uses.
    fn service(&self) -> ServiceName {
        let name = format!("conformance-{}", Incarnation::random());
        match ServiceName::new(name) {
            Ok(name) => name,
            Err(error) => unreachable!("letters, digits and a dash are a name: {error:?}"),
        }
    }

    /// The name of an election that nobody else uses.
    fn election(&self) -> ElectionName {
        let name = format!("conformance/{}", Incarnation::random());
        match ElectionName::new(name) {
            Ok(name) => name,
            Err(error) => unreachable!("letters, digits and a slash are a name: {error:?}"),
        }
    }

    /// A time-to-live of a candidate's entry that a case can wait for to pass, within the elector's limits. Default [`ttl`](Self::ttl).
    fn election_ttl(&self) -> Duration {
        self.ttl()
    }

    /// How long after the end of its time-to-live a record or an entry may still be seen. Default 5 s.
    fn expiry_slack(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// How long a case may wait for a feed that is quiet. If the backend's own limits are longer, the case is skipped. Default
    /// 60 s.
    fn patience(&self) -> Duration {
        Duration::from_mins(1)
    }

    /// How many instances a big set has. Default 1000.
    fn big_set(&self) -> usize {
        1000
    }

    /// Whether readers learn that an instance was withdrawn on purpose. Default true.
    fn tells_withdrawals(&self) -> bool {
        true
    }

    /// Puts an entry into the service that cannot be read as an instance.
    async fn write_garbage(&self, service: &ServiceName) -> Result<()> {
        let _ = service;
        Err(Error::new(ErrorKind::Unsupported, "write garbage"))
    }

    /// Deletes a record behind its owner's back, as an operator would.
    async fn remove_record(&self, record: &RecordId) -> Result<()> {
        let _ = record;
        Err(Error::new(ErrorKind::Unsupported, "remove record"))
    }

    /// Ends the lease or session under a record. Where it is `Unsupported`, cases wait for the time-to-live to pass.
    async fn expire(&self, record: &RecordId) -> Result<()> {
        let _ = record;
        Err(Error::new(ErrorKind::Unsupported, "expire record"))
    }

    /// Deletes a candidate's entry behind its owner's back, as an operator would.
    async fn remove_entry(&self, ticket: &Ticket) -> Result<()> {
        let _ = ticket;
        Err(Error::new(ErrorKind::Unsupported, "remove entry"))
    }

    /// Ends the lease or session under a candidate's entry. Where it is `Unsupported`, cases wait for the time-to-live to pass.
    async fn expire_entry(&self, ticket: &Ticket) -> Result<()> {
        let _ = ticket;
        Err(Error::new(ErrorKind::Unsupported, "expire entry"))
    }

    /// How many entries an election has at the server, of whatever client.
    async fn entries(&self, election: &ElectionName) -> Result<usize> {
        let _ = election;
        Err(Error::new(ErrorKind::Unsupported, "count entries"))
    }
}
