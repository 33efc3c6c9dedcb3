//! Reading services: lists, and feeds of one service.

pub(crate) mod instancer;
pub(crate) mod rate_limiter;
pub(crate) mod revision_domain;
pub(crate) mod service_set;
pub(crate) mod services;
pub(crate) mod services_watcher;
pub(crate) mod watcher;
