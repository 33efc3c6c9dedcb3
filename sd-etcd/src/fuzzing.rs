//! The reader of a service's entries, for `cargo xtask fuzz`.

use sd_core::clock::Moment;
use sd_core::{ServiceName, Snapshot};

use crate::client::answer::Position;
use crate::codec::{Layout, Origin};
use crate::config::format::Format;
use crate::reading::service_set::ServiceSet;

/// The set of one service, from puts and deletions.
#[derive(Debug)]
pub struct Entries(ServiceSet);

impl Entries {
    /// No entries below `prefix`.
    pub fn new(prefix: &str, service: ServiceName, format: Format) -> Self {
        let folders = Layout::new(prefix, format).folders(&service);
        Self(ServiceSet::new(service, folders))
    }

    /// Takes an entry as it is now.
    pub fn put(
        &mut self,
        key: &[u8],
        value: &[u8],
        create_revision: i64,
        known: Option<&Snapshot>,
    ) {
        let origin = Origin {
            lease: create_revision,
            create_revision,
        };
        self.0.put(key, value, origin, known);
    }

    /// Forgets an entry.
    pub fn delete(&mut self, key: &[u8]) {
        self.0.delete(key);
    }

    /// The set as it is now.
    pub fn snapshot(&mut self) -> Snapshot {
        let position = Position {
            cluster: 1,
            revision: 1,
        };
        self.0.snapshot(position, Moment::ZERO)
    }
}
