//! Following a source: the task that opens feeds and handles their errors, and the handle that readers hold.

pub(crate) mod config;
pub(crate) mod driver;
pub(crate) mod mass_loss;
pub(crate) mod publisher;
pub(crate) mod refresh;
pub(crate) mod services;
pub(crate) mod subscription;
