//! What a backend's tests supply to the conformance suites.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::port::Ticket;
use sd_core::{
    Backend, ElectionName, Error, ErrorKind, Incarnation, RecordId, Result, ServiceName,
};

use crate::Ability;

/// One store, its clients, and the acts that only an operator can do to it.
///
/// An author of a backend states here what its source [lacks](Self::lacks), and how long things take there. The optional acts return
/// `Unsupported` by default; a case that needs one fails then.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// A new client of the store, as independent as a client in another process.
    async fn backend(&self) -> Result<Arc<dyn Backend>>;

    /// What the source lacks. Cases that need it are skipped. What costs one record to find out is held against this.
    ///
    /// Of [`Leases`](Ability::Leases), [`Sessions`](Ability::Sessions) and [`PermanentRecords`](Ability::PermanentRecords) most sources
    /// have one. Where records are permanent, [`Expiry`](Ability::Expiry) is lacking, too.
    fn lacks(&self) -> Vec<Ability>;

    /// Whether the source does not [lack](Self::lacks) this.
    fn has(&self, ability: Ability) -> bool {
        !self.lacks().contains(&ability)
    }

    /// A time-to-live within the backend's limits that is short enough for a case to wait for its end. Where a session keeps the
    /// records, that of the session.
    fn ttl(&self) -> Duration;

    /// How late a read may see what a write has confirmed. Default zero: every read after the confirmation sees it.
    fn visible_within(&self) -> Duration {
        Duration::ZERO
    }

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

    /// How long a feed may be silent. Configure the backend so that its own limit is shorter. Default 60 s.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// How many instances a large set has. Default 1000.
    fn big_set(&self) -> usize {
        1000
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

    /// Ends the lease of a record, or the session that keeps it, with all its other records. If this is `Unsupported`, cases wait for
    /// the time-to-live of a lease to end; a session has to be ended here.
    async fn expire(&self, record: &RecordId) -> Result<()> {
        let _ = record;
        Err(Error::new(ErrorKind::Unsupported, "expire record"))
    }

    /// Deletes a candidate's entry without its owner, as an operator would.
    async fn remove_entry(&self, ticket: &Ticket) -> Result<()> {
        let _ = ticket;
        Err(Error::new(ErrorKind::Unsupported, "remove entry"))
    }

    /// Ends the lease of a candidate's entry, or the session that keeps it, with all its other entries. If this is `Unsupported`, cases
    /// wait for the time-to-live of a lease to end; a session has to be ended here.
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
