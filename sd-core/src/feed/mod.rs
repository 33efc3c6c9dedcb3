//! Following a source: the task that opens feeds and decides on their errors, and what readers hold.

pub(crate) mod config;
pub(crate) mod driver;
pub(crate) mod mass_loss;
pub(crate) mod publisher;
pub(crate) mod subscription;
