//! The reading port: services, the set of one service, and its feed.

pub(crate) mod awaited;
pub(crate) mod full_read;
pub(crate) mod heartbeat_watcher;
pub(crate) mod instancer;
pub(crate) mod position;
pub(crate) mod service_set;
pub(crate) mod services_watcher;
pub(crate) mod watcher;
