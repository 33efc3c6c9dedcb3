//! Instances and sets of one service.

use std::sync::Arc;

use sd_core::clock::Moment;
use sd_core::{Incarnation, Instance, InstanceId, Revision, ServiceName, Snapshot};

/// An instance of `greeter` with this id, always of the same run.
pub(crate) fn greeter(id: &str, port: u16) -> Instance {
    let instance = Instance::new("greeter", format!("10.0.0.8:{port}")).unwrap();
    let run = Incarnation::from_u64(port.into());
    instance
        .with_id(InstanceId::new(id).unwrap())
        .with_incarnation(run)
}

/// All of `greeter`, at a position of its feed.
pub(crate) fn set(revision: u64, instances: Vec<Instance>) -> Snapshot {
    let service = ServiceName::new("greeter").unwrap();
    let instances = instances.into_iter().map(Arc::new).collect();
    Snapshot::new(
        service,
        Revision::new("script", revision),
        Moment::ZERO,
        instances,
    )
}
