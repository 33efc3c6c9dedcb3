//! What modules and the config service tell each other: names of events, and the JSON that goes with them.

pub(crate) mod address;
pub(crate) mod config_data;
pub(crate) mod declaration;
pub(crate) mod endpoint;
pub mod events;
pub(crate) mod lenient;
pub(crate) mod requirements;
