//! What an operator can do to a registry without its clients.

use std::sync::Arc;

use super::Memory;
use super::elections::{Elections, End};
use super::store::Store;
use crate::clock::Clock;
use crate::model::instance::RecordId;
use crate::model::name::ElectionName;
use crate::port::elector::CandidateId;

/// Changes the data of a [`Memory`] as an operator changes a server's data, whichever client owns it. For simulations and
/// tests. Readers are not told why a record goes; [`sd_core::Operator`](crate::Operator), which has the same name, tells them.
#[derive(Clone, Debug)]
pub struct Operator {
    store: Arc<Store>,
    elections: Arc<Elections>,
    clock: Arc<dyn Clock>,
}

impl Operator {
    pub(super) fn of(memory: &Memory) -> Self {
        Self {
            store: Arc::clone(&memory.store),
            elections: Arc::clone(&memory.elections),
            clock: Arc::clone(&memory.clock),
        }
    }

    /// Removes a record, whichever client owns it. Returns whether it was there.
    pub fn remove(&self, record: &RecordId) -> bool {
        self.store.remove(record)
    }

    /// The candidates of an election, in the order in which they joined.
    pub fn entries(&self, election: &ElectionName) -> Vec<CandidateId> {
        self.elections.entries(election, self.clock.now())
    }

    /// Removes a candidate's entry, whichever client owns it. Returns whether it was there.
    pub fn remove_entry(&self, election: &ElectionName, id: CandidateId) -> bool {
        self.end_entry(election, id, End::Removed)
    }

    /// Ends the lease of a candidate's entry at once. Returns whether it was there.
    pub fn expire_entry(&self, election: &ElectionName, id: CandidateId) -> bool {
        self.end_entry(election, id, End::Expired)
    }

    /// Gives the entries of all candidates their full time-to-live again, as a server does after a restart.
    pub fn restart_leases(&self) {
        self.elections.restart_leases(self.clock.now());
    }

    fn end_entry(&self, election: &ElectionName, id: CandidateId, how: End) -> bool {
        let now = self.clock.now();
        self.elections.end(election, id, how, now)
    }
}
