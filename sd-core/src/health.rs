//! What a registry knows of itself, for probes.

use std::fmt;

use serde::Serialize;

use crate::model::instance::RecordId;
use crate::model::name::ServiceName;

/// How a registry's subscriptions and registrations are, without asking the server. From
/// [`Registry::health`](crate::Registry::health). Serializes to JSON; its display form is one line.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// Services that are subscribed to and were never read.
    pub unknown: Vec<ServiceName>,
    /// Services whose last good set cannot be confirmed now.
    pub stale: Vec<ServiceName>,
    /// Registrations that the server has not confirmed yet, or has lost, or that are kept no more because their
    /// runtime has ended.
    pub unregistered: Vec<RecordId>,
    /// Registrations that were confirmed and whose renewals fail now.
    pub at_risk: Vec<RecordId>,
    /// Whether the registry was closed.
    pub closed: bool,
}

impl Health {
    /// Whether the process can find what it calls: every service that it subscribes to has been read, and the registry is open.
    ///
    /// A registry that goes down later changes nothing: the sets stay. Registrations do not count either. A process that is not
    /// registered still serves everyone who knows it, and a probe that fails while the registry is down takes every process
    /// down at once.
    pub fn is_ready(&self) -> bool {
        !self.closed && self.unknown.is_empty()
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.closed {
            return f.write_str("closed");
        }
        let records = |records: &[RecordId]| {
            let ids = records
                .iter()
                .map(|one| format!("{} of {}", one.id, one.service));
            ids.collect::<Vec<_>>().join(", ")
        };
        let services = |services: &[ServiceName]| {
            let names = services.iter().map(ServiceName::as_str);
            names.collect::<Vec<_>>().join(", ")
        };
        let parts = [
            ("not read yet", services(&self.unknown)),
            ("stale", services(&self.stale)),
            ("not registered", records(&self.unregistered)),
            ("at risk", records(&self.at_risk)),
        ];
        let parts = parts.into_iter().filter(|(_, what)| !what.is_empty());
        let parts: Vec<_> = parts.map(|(how, what)| format!("{how}: {what}")).collect();
        if parts.is_empty() {
            return f.write_str("well");
        }
        f.write_str(&parts.join("; "))
    }
}
