//! Keeping a record true at the server, and what its owner holds.

pub(crate) mod advertised_address;
pub(crate) mod command;
pub(crate) mod config;
pub(crate) mod event;
pub(crate) mod guard;
pub(crate) mod keeper;
pub(crate) mod register;
pub(crate) mod registrations;
pub(crate) mod status;
