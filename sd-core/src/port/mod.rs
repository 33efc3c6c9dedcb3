//! The ports: what a backend implements.

pub(crate) mod backend;
pub(crate) mod elector;
pub(crate) mod instancer;
pub(crate) mod registrar;
pub(crate) mod safety;
