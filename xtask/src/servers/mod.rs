//! The real servers that tests need: found or installed, started, recorded, ended.

pub(crate) mod all;
pub(crate) mod command;
mod consul;
pub(crate) mod debian;
mod etcd;
pub(crate) mod fleet;
pub(crate) mod go;
pub(crate) mod java;
mod knot;
pub(crate) mod maven;
mod moto;
mod names;
pub(crate) mod node;
pub(crate) mod program;
mod python;
mod record;
mod redis;
pub(crate) mod running;
pub(crate) mod script;
pub(crate) mod server;
mod start;
pub(crate) mod variables;
mod zookeeper;
