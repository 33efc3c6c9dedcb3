//! The operators' port.

pub(crate) mod heartbeat_operator;
pub(crate) mod operator;
