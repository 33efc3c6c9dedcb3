//! The writing port: records on leases.

pub(crate) mod left_record;
pub(crate) mod registrar;
pub(crate) mod registration;
pub(crate) mod removal;
