//! Keeping a record true at the server, and what its owner holds.

pub(crate) mod advertised_address;
pub(crate) mod event;
pub(crate) mod guard;
pub(crate) mod keeper;
