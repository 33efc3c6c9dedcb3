//! One file for each command.

pub(crate) mod agent;
pub(crate) mod config_service;
pub(crate) mod elect;
mod http_api;
pub(crate) mod leader;
pub(crate) mod list;
pub(crate) mod manual;
pub(crate) mod operate;
pub(crate) mod register;
pub(crate) mod services;
pub(crate) mod wait_for;
pub(crate) mod watch;
