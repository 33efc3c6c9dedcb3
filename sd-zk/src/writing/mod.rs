//! The writing port: records in ephemeral nodes of one session.

pub(crate) mod claims;
pub(crate) mod records;
pub(crate) mod registrar;
pub(crate) mod registration;
pub(crate) mod withdrawals;
