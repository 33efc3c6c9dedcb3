//! The readers of what is stored and told, for `cargo xtask fuzz`.

use sd_core::clock::Moment;
use sd_core::{Revision, ServiceName, Snapshot};

use crate::codec::change::{self, Done};
use crate::codec::heartbeat;
use crate::reading::service_set::ServiceSet;

/// The set of one service, from entries and from what is told of their changes.
#[derive(Debug)]
pub struct Entries(ServiceSet);

impl Entries {
    /// No entries.
    pub fn new(service: ServiceName) -> Self {
        Self(ServiceSet::new(service, "records"))
    }

    /// Takes an entry as it is now.
    pub fn put(&mut self, id: &[u8], value: &[u8]) {
        self.0.put(id, value, None);
    }

    /// Takes what is told of a change.
    pub fn take(&mut self, message: &[u8]) {
        match change::decode(message).map(|change| change.done) {
            Some(Done::Put { id, value, .. }) => self.0.put(id, value, None),
            Some(Done::Ended { id }) => self.0.end(id),
            Some(Done::More) | None => {}
        }
    }

    /// Forgets an entry.
    pub fn end(&mut self, id: &[u8]) {
        self.0.end(id);
    }

    /// How many entries there are.
    pub fn count(&self) -> usize {
        self.0.entries()
    }

    /// The set as it is now.
    pub fn snapshot(&mut self) -> Snapshot {
        self.0.snapshot(Revision::new("fuzz", 1), Moment::ZERO)
    }
}

/// Reads a heartbeat. Says whether it can be read.
pub fn is_heartbeat(service: &ServiceName, id: &[u8], value: &[u8]) -> bool {
    heartbeat::decode(service, id, value).is_ok()
}
