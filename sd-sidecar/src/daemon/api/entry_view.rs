//! A registration as `/v1` shows it.

use sd_core::{Incarnation, Instance, InstanceId, Override, ServiceName};
use serde::Serialize;

use crate::checks::Health;
use crate::daemon::registrations::Entry;
use crate::wire::{Declaration, rfc3339};

/// The JSON form. Times are RFC 3339.
#[derive(Serialize)]
pub(super) struct EntryView<'a> {
    service: &'a ServiceName,
    id: &'a InstanceId,
    incarnation: Incarnation,
    /// `Init`, `Registered`, `Serving`, `Draining` or `Deregistered`.
    stage: &'static str,
    owner: &'a str,
    registered_at: String,
    updated_at: String,
    /// When it leaves, while it drains.
    drain_deadline: Option<String>,
    health: &'a Health,
    /// What an operator says of it.
    overridden: Option<Override>,
    /// Why the registry does not have it as it should.
    error: Option<&'a str>,
    /// The instance as the registry should have it.
    instance: &'a Instance,
    /// What was asked for.
    declaration: &'a Declaration,
}

impl<'a> EntryView<'a> {
    pub(super) fn new(entry: &'a Entry) -> Self {
        Self {
            service: &entry.record.service,
            id: &entry.record.id,
            incarnation: entry.record.incarnation,
            stage: entry.stage.as_str(),
            owner: &entry.owner.0,
            registered_at: rfc3339(entry.registered_at),
            updated_at: rfc3339(entry.updated_at),
            drain_deadline: entry.drain_deadline.map(rfc3339),
            health: &entry.health,
            overridden: entry.overridden,
            error: entry.error.as_deref(),
            instance: &entry.instance,
            declaration: &entry.declaration,
        }
    }
}
