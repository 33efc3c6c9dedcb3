//! The election port: candidates on leases, and who leads.

pub(crate) mod candidate_key;
pub(crate) mod deletion_watch;
pub(crate) mod elector;
pub(crate) mod entry;
pub(crate) mod flaws;
#[cfg(feature = "etcd-client")]
pub(crate) mod guarded_write;
pub(crate) mod keys;
pub(crate) mod leader_watcher;
pub(crate) mod safety;
pub(crate) mod term_record;
