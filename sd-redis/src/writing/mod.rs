//! The writing port: records that end unless they are renewed.

pub(crate) mod heartbeat_registrar;
pub(crate) mod listing;
pub(crate) mod registrar;
pub(crate) mod registration;
pub(crate) mod renewals;
