//! Elections: candidates, who leads, and what only the leader can write.

pub(crate) mod candidate_sessions;
pub(crate) mod elector;
pub(crate) mod entry;
pub(crate) mod guarded_write;
pub(crate) mod keys;
pub(crate) mod leader_record;
pub(crate) mod leader_watcher;
pub(crate) mod lock_attempt;
pub(crate) mod participation;
pub(crate) mod safety;
pub(crate) mod term_record;
pub(crate) mod token_domain;
