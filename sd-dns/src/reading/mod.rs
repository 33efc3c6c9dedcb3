//! Reading: what a name tells of a service, once and again.

pub(crate) mod answers;
pub(crate) mod instancer;
pub(crate) mod interval;
pub(crate) mod lookup;
pub(crate) mod remembered;
pub(crate) mod service_set;
pub(crate) mod targets;
pub(crate) mod watcher;
