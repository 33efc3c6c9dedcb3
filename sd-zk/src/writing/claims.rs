//! What this client has written, or tried to: in which sessions, by id. It says whose a node is that names no run.

use std::collections::BTreeMap;
use std::sync::Mutex;

use sd_core::sync::lock;
use sd_core::{Incarnation, InstanceId, RecordId, ServiceName};

/// How many of its last sessions are remembered for a record. The nodes of earlier ones have gone.
const SESSIONS: usize = 4;

/// The ids that are written here.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<BTreeMap<Key, Claim>>);

type Key = (ServiceName, InstanceId);

#[derive(Debug)]
struct Claim {
    incarnation: Incarnation,
    sessions: Vec<i64>,
}

impl Claims {
    /// Notes that this record is about to be written in a session. The first run of an id in a session has it, until it is forgotten
    /// or another one [has made](Self::made) a node.
    pub(crate) fn claim(&self, record: &RecordId, session: i64) {
        let mut claims = lock(&self.0);
        let is_others = claims.get(&key(record)).is_some_and(|claim| {
            claim.incarnation != record.incarnation && claim.sessions.contains(&session)
        });
        if !is_others {
            note(&mut claims, record, session);
        }
    }

    /// Notes that this record's node was made in a session. So the node of another run under its id has gone, although that run may not
    /// have been told.
    pub(crate) fn made(&self, record: &RecordId, session: i64) {
        note(&mut lock(&self.0), record, session);
    }

    /// Whether a node of this session under the record's id can only be the record's.
    pub(crate) fn has(&self, record: &RecordId, session: i64) -> bool {
        let claims = lock(&self.0);
        claims.get(&key(record)).is_some_and(|claim| {
            claim.incarnation == record.incarnation && claim.sessions.contains(&session)
        })
    }

    pub(crate) fn forget(&self, record: &RecordId) {
        let mut claims = lock(&self.0);
        let key = key(record);
        if claims
            .get(&key)
            .is_some_and(|claim| claim.incarnation == record.incarnation)
        {
            claims.remove(&key);
        }
    }
}

fn note(claims: &mut BTreeMap<Key, Claim>, record: &RecordId, session: i64) {
    let new = || Claim {
        incarnation: record.incarnation,
        sessions: Vec::new(),
    };
    let claim = claims.entry(key(record)).or_insert_with(new);
    if claim.incarnation != record.incarnation {
        *claim = new();
    }
    if !claim.sessions.contains(&session) {
        claim.sessions.truncate(SESSIONS - 1);
        claim.sessions.insert(0, session);
    }
}

fn key(record: &RecordId) -> Key {
    (record.service.clone(), record.id.clone())
}

#[cfg(test)]
mod tests {
    use sd_core::Instance;

    use super::*;

    #[test]
    fn of_two_runs_under_one_id_the_first_has_it_until_it_is_forgotten_or_its_session_has_ended() {
        let first = Instance::new("s", "h:1").unwrap();
        let second = first.clone().with_incarnation(Incarnation::from_u64(7));
        let (first, second) = (first.record_id(), second.record_id());
        let claims = Claims::default();
        claims.claim(&first, 1);
        claims.claim(&second, 1);
        assert!(claims.has(&first, 1) && !claims.has(&second, 1));
        claims.forget(&second);
        assert!(claims.has(&first, 1));
        claims.claim(&first, 2);
        assert!(claims.has(&first, 1) && claims.has(&first, 2));
        claims.claim(&second, 3);
        assert!(claims.has(&second, 3) && !claims.has(&first, 2));
        claims.forget(&second);
        assert!(!claims.has(&second, 3));
    }

    #[test]
    fn a_run_whose_node_was_made_has_the_id_although_the_one_before_was_not_forgotten() {
        let first = Instance::new("s", "h:1").unwrap();
        let second = first.clone().with_incarnation(Incarnation::from_u64(7));
        let (first, second) = (first.record_id(), second.record_id());
        let claims = Claims::default();
        claims.claim(&first, 1);
        claims.claim(&second, 1);
        claims.made(&second, 1);
        assert!(claims.has(&second, 1) && !claims.has(&first, 1));
        claims.forget(&first);
        assert!(claims.has(&second, 1));
    }
}
