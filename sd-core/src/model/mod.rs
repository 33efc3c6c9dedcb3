//! The vocabulary: what is known about a service. No I/O.

pub(crate) mod checked;
pub(crate) mod delta;
pub(crate) mod endpoint;
pub(crate) mod instance;
pub(crate) mod name;
pub(crate) mod newest_run;
pub(crate) mod overriding;
pub(crate) mod snapshot;
pub(crate) mod state;
pub(crate) mod token;
