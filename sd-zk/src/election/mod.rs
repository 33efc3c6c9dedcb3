//! The election port: candidates as Curator's latch has them, and who leads.

pub(crate) mod candidate_node;
pub(crate) mod candidate_sessions;
pub(crate) mod deletion_watch;
pub(crate) mod elector;
pub(crate) mod entry;
pub(crate) mod guarded_write;
pub(crate) mod keys;
pub(crate) mod leader_watcher;
pub(crate) mod participation;
pub(crate) mod reception;
pub(crate) mod safety;
pub(crate) mod term_record;
pub(crate) mod token_domain;
