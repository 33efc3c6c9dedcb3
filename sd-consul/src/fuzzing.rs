//! The reader of a service's entries, for `cargo xtask fuzz`.

use sd_core::clock::Moment;
use sd_core::{Revision, ServiceName, Snapshot};

use crate::codec::HealthEntry;
use crate::config::ConsulConfig;
use crate::reading::service_set::ServiceSet;

/// The set of a service, as Consul answers for it.
///
/// # Errors
/// What makes the whole answer unreadable.
pub fn read_health(
    service: &ServiceName,
    body: &[u8],
    before: Option<&Snapshot>,
) -> Result<Snapshot, serde_json::Error> {
    let entries: Vec<HealthEntry> = serde_json::from_slice(body)?;
    let at = (Revision::new("fuzz", 1), Moment::ZERO);
    let set = ServiceSet::new(service, &ConsulConfig::default());
    Ok(set.of(entries, at, before, before.is_some()))
}
