//! Writing: a connection for each record.

pub(crate) mod announcement;
pub(crate) mod registrar;
pub(crate) mod registration;
