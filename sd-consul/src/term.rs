//! The record of an election's last term, from which the next leader learns how that one ended.
//!
//! It is written when a term begins and marked when its leader has stopped. It has no lock, so it outlives the session.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sd_core::{CandidateId, Predecessor, Result};
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::election_keys::ElectionKeys;
use crate::kv::{KvEntry, KvOp, Txn};

/// A term as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Term {
    token: u64,
    id: CandidateId,
    /// Tells the term from one of another participation with the same id.
    session: String,
    /// For how long somebody may believe in it, or in one before it, if it does not end well.
    ttl_ms: u64,
    /// Whether its leader has stopped.
    ended: bool,
}

impl Term {
    /// Whether both are of one entry and neither has ended.
    fn is(&self, other: &Self) -> bool {
        let (one, two) = (self, other);
        (one.token, one.id, &one.session, one.ended) == (two.token, two.id, &two.session, two.ended)
    }

    /// As it is recorded when the one before ended like this.
    fn after(self, before: Predecessor) -> Self {
        Self {
            ttl_ms: millis(before.recorded_ttl(self.ttl())),
            ..self
        }
    }

    /// What the next leader is told if this one does not end well.
    fn unknown(&self) -> Predecessor {
        Predecessor::Unknown { ttl: self.ttl() }
    }

    fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Records the term of one entry.
#[derive(Debug)]
pub(crate) struct TermRecorder {
    id: CandidateId,
    session: String,
    ttl: Duration,
    progress: Mutex<Progress>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// What was found before the first attempt to write, whose outcome may be unknown.
    before: Option<Predecessor>,
    recorded: bool,
}

impl TermRecorder {
    pub(crate) fn new(id: CandidateId, session: &str, ttl: Duration) -> Self {
        Self {
            id,
            session: session.to_owned(),
            ttl,
            progress: Mutex::default(),
        }
    }

    /// Records that the term of this token has begun, once, if our session still leads; tells how the one before it ended. `None` if
    /// the record or the leader changed meanwhile.
    pub(crate) async fn begin(
        &self,
        client: &Client,
        keys: &ElectionKeys,
        token: u64,
    ) -> Result<Option<Predecessor>> {
        const OP: &str = "consul: record term";
        let progress = *self.progress();
        if let Progress {
            before: Some(before),
            recorded: true,
        } = progress
        {
            return Ok(Some(before));
        }
        let mine = Term {
            token,
            id: self.id,
            session: self.session.clone(),
            ttl_ms: millis(self.ttl),
            ended: false,
        };
        let (found, _) = client.kv_get(OP, keys.term()).await?;
        let term = found.as_ref().map(decode);
        let before = match &term {
            None => Predecessor::None,
            // From an attempt whose outcome was unknown.
            Some(Some(term)) if term.is(&mine) => progress.before.unwrap_or(term.unknown()),
            Some(Some(term)) if term.ended => Predecessor::Resigned,
            Some(Some(term)) => term.unknown(),
            // Another program wrote something else there.
            Some(None) => mine.unknown(),
        };
        self.progress().before = Some(before);
        if !term.flatten().is_some_and(|term| term.is(&mine)) {
            let put = KvOp::cas(
                keys.term(),
                index(found.as_ref()),
                encode(&mine.after(before)),
            );
            let steps = [KvOp::check_session(keys.leader(), &self.session), put];
            if let Txn::Refused(_) = client.txn(OP, &steps).await? {
                return Ok(None);
            }
        }
        self.progress().recorded = true;
        Ok(Some(before))
    }

    /// Nothing that panics is done under the lock.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks the last term as ended if it is that of this session, whose leader has stopped. Releases the lead in the same step, if the
/// session still has it, and says whether it did.
pub(crate) async fn end(client: &Client, keys: &ElectionKeys, session: &str) -> Result<bool> {
    const OP: &str = "consul: end term";
    let (found, _) = client.kv_get(OP, keys.term()).await?;
    let Some(found) = found else {
        return Ok(false);
    };
    let Some(term) = decode(&found).filter(|term| term.session == session && !term.ended) else {
        return Ok(false);
    };
    let ended = encode(&Term {
        ended: true,
        ..term
    });
    let mark = || KvOp::cas(keys.term(), found.modify_index, &ended);
    let release = KvOp::unlock(keys.leader(), session, Vec::new());
    if let Txn::Done(_) = client.txn(OP, &[release, mark()]).await? {
        return Ok(true);
    }
    // The session has ended already. If the record was changed since, another term has begun, and nobody asks how ours ended.
    client.txn(OP, &[mark()]).await?;
    Ok(false)
}

fn index(found: Option<&KvEntry>) -> u64 {
    found.map_or(0, |found| found.modify_index)
}

/// `None` if another program wrote something else there.
fn decode(found: &KvEntry) -> Option<Term> {
    serde_json::from_slice(&found.value).ok()
}

fn encode(term: &Term) -> Vec<u8> {
    // Text and numbers can always be written as JSON.
    serde_json::to_vec(term).unwrap_or_default()
}
