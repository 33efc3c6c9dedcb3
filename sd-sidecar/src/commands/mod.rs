//! One file for each command of `sdctl`.

pub(crate) mod elect;
pub(crate) mod leader;
pub(crate) mod list;
pub(crate) mod operate;
pub(crate) mod register;
pub(crate) mod services;
pub(crate) mod watch;
