//! What a service has told, as the set of one service.

use std::sync::Arc;

use sd_core::{Result, Revision, ServiceName, Snapshot};

use crate::client::newest::{Told, Topic};
use crate::client::session::{Session, read};
use crate::codec::{set_of_hosts, set_of_routes};
use crate::config::ClusterConfig;
use crate::protocol::address::AddressConfiguration;

/// Where a service is told.
pub(crate) fn topic(config: &ClusterConfig, service: &ServiceName) -> Topic {
    if config.routes {
        Topic::Routes
    } else {
        Topic::Hosts(service.as_str().to_owned())
    }
}

/// The set of a service. Cancel-safe.
///
/// # Errors
/// `InvalidData` if what was told cannot be read at all. One address that cannot is named in [`Snapshot::skipped`].
pub(crate) async fn set(
    op: &'static str,
    session: &Session,
    topic: &Topic,
    service: &ServiceName,
    told: &Told,
) -> Result<Snapshot> {
    let position = (revision(session, told), told.as_of);
    if *topic == Topic::Routes {
        let routes = session.routes(op, told).await?;
        return Ok(set_of_routes(service, position, &routes));
    }
    let hosts: Vec<AddressConfiguration> = read(op, &told.data).await?;
    Ok(set_of_hosts(service, position, &hosts))
}

/// Where something stands among what its session told. The protocol has no numbers of its own.
pub(crate) fn revision(session: &Session, told: &Told) -> Revision {
    Revision::new(Arc::clone(&session.history), told.number)
}
