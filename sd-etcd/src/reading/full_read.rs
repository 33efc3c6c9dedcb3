//! Reads one service as a whole.

use etcd_client::KeyValue;
use sd_core::{Error, ErrorKind, Result, ServiceName, Snapshot};

use crate::client::Client;
use crate::client::answer::Position;
use crate::client::range::read_range;
use crate::codec::Layout;
use crate::reading::service_set::ServiceSet;

/// At which revisions the folders of a service were read, ours first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Positions {
    pub(crate) ours: Position,
    pub(crate) plain: Option<Position>,
}

/// Reads all records of a service, each folder at one revision.
pub(crate) async fn read_service(
    client: &Client,
    layout: &Layout,
    op: &'static str,
    service: &ServiceName,
    known: Option<&Snapshot>,
) -> Result<(ServiceSet, Positions)> {
    let folders = layout.folders(service);
    let new = || ServiceSet::new(service.clone(), folders.clone());
    let put = |set: &mut ServiceSet, entry: &KeyValue| {
        set.put(entry.key(), entry.value(), entry.into(), known);
    };
    let (start, end) = folders.ours();
    let (mut set, ours) = read_range(client, op, (&start, &end), new, put).await?;
    let Some((start, end)) = folders.plain() else {
        return Ok((set, Positions { ours, plain: None }));
    };
    let (part, plain) = read_range(client, op, (&start, &end), new, put).await?;
    if ours.cluster != plain.cluster {
        return Err(Error::new(ErrorKind::Outdated, op)
            .because("the folders of one service were read from different clusters"));
    }
    set.absorb(part);
    let plain = Some(plain);
    Ok((set, Positions { ours, plain }))
}
