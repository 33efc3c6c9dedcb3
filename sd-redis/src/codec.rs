//! Between an [`Instance`](sd_core::Instance) and what is stored in Redis: keys, values and what is told of changes. Pure functions.
//!
//! A service has three keys in one slot: a hash of its records, a sorted set of when they end by the server's clock, and its state: the
//! name of its history and a count of its changes. What is done to them is in `scripts/`.

pub(crate) mod change;
#[cfg(test)]
mod golden;
pub(crate) mod heartbeat;
pub(crate) mod names;
pub(crate) mod value;
