//! Reading: services and their feeds.

pub(crate) mod instancer;
pub(crate) mod service_set;
pub(crate) mod services_watcher;
pub(crate) mod watcher;
