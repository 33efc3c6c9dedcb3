//! Reads one service as a whole.

use sd_core::{Result, ServiceName, Snapshot};

use crate::client::Client;
use crate::client::answer::Position;
use crate::client::range::read_range;
use crate::codec::Layout;
use crate::reading::service_set::ServiceSet;

/// Reads all records of a service at one revision.
pub(crate) async fn read_service(
    client: &Client,
    layout: &Layout,
    op: &'static str,
    service: &ServiceName,
    known: Option<&Snapshot>,
) -> Result<(ServiceSet, Position)> {
    let (prefix, end) = layout.service(service);
    let new = || ServiceSet::new(service.clone(), prefix.clone());
    read_range(client, op, (&prefix, &end), new, |set, entry| {
        set.put(entry.key(), entry.value(), entry.into(), known);
    })
    .await
}
