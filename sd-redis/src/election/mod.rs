//! The election port: a queue of candidates, each with a lease that is kept by the server's clock.

pub(crate) mod candidate;
pub(crate) mod changes;
pub(crate) mod clients;
pub(crate) mod elector;
pub(crate) mod entry;
pub(crate) mod guarded_write;
pub(crate) mod keys;
pub(crate) mod leader_watcher;
pub(crate) mod news;
pub(crate) mod safety;
pub(crate) mod scripts;
pub(crate) mod term_record;
