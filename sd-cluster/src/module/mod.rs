//! What a module is beside an instance: its configuration, the routes, how it is.

pub(crate) mod handle;
pub(crate) mod health;
pub(crate) mod keeper;
pub(crate) mod offline;
pub(crate) mod overrides;
pub(crate) mod remote_config;
pub(crate) mod routes_receiver;
pub(crate) mod secret_words;
