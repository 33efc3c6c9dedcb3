//! The operators' port.

pub(crate) mod operator;
