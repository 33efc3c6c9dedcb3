//! Writing services: records at the agent.

pub(crate) mod agent;
pub(crate) mod records;
pub(crate) mod registrar;
pub(crate) mod registration;
