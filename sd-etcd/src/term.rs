//! The record of an election's last term, from which the next leader learns how that one ended.
//!
//! It is written when a term begins and marked when its leader has stopped. It hangs on no lease, so it outlives both.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, Txn, TxnOp};
use sd_core::{CandidateId, Error, ErrorKind, Predecessor, Result};
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::election_keys::ElectionKeys;
use crate::elector::delete;
use crate::seat::Seat;

/// A term as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Term {
    token: u64,
    id: CandidateId,
    /// Tells the term from one of another participation with the same id.
    lease: i64,
    /// For how long somebody may believe in it, or in one before it, if it does not end well.
    ttl_ms: u64,
    /// Whether its leader has stopped.
    ended: bool,
}

impl Term {
    /// Whether both are of one entry and neither has ended.
    fn is(&self, other: &Self) -> bool {
        let entry = |term: &Self| (term.token, term.id, term.lease, term.ended);
        entry(self) == entry(other)
    }

    /// As it is recorded when the one before ended like this.
    fn after(&self, before: Predecessor) -> Self {
        Self {
            ttl_ms: millis(before.recorded_ttl(self.ttl())),
            ..self.clone()
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
    mine: Term,
    progress: Mutex<Progress>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// What was found before the first attempt to write, whose outcome may be unknown.
    before: Option<Predecessor>,
    recorded: bool,
}

impl TermRecorder {
    pub(crate) fn new(id: CandidateId, lease: i64, created: i64, ttl: Duration) -> Self {
        Self {
            mine: Term {
                token: created.max(0).cast_unsigned(),
                id,
                lease,
                ttl_ms: millis(ttl),
                ended: false,
            },
            progress: Mutex::default(),
        }
    }

    /// Records that the term has begun, once; tells how the one before it ended. `None` if the record changed meanwhile, or the
    /// entry is gone.
    pub(crate) async fn begin(&self, seat: &Seat) -> Result<Option<Predecessor>> {
        const OP: &str = "etcd: record term";
        let Seat { client, keys, .. } = seat;
        let progress = *self.progress();
        if let Progress {
            before: Some(before),
            recorded: true,
        } = progress
        {
            return Ok(Some(before));
        }
        let found = read(client, OP, keys).await?;
        let term = found.as_ref().map(decode);
        let before = match &term {
            None => Predecessor::None,
            // From an attempt whose outcome was unknown.
            Some(Some(term)) if term.is(&self.mine) => progress.before.unwrap_or(term.unknown()),
            Some(Some(term)) if term.ended => Predecessor::Resigned,
            Some(Some(term)) => term.unknown(),
            Some(None) => self.mine.unknown(),
        };
        let is_mine = term.flatten().is_some_and(|term| term.is(&self.mine));
        self.progress().before = Some(before);
        if !is_mine {
            let unchanged = found.map_or(0, |found| found.mod_revision());
            let unchanged = Compare::mod_revision(keys.term(), CompareOp::Equal, unchanged);
            let conditions: Vec<Compare> = seat.is_there().into_iter().chain([unchanged]).collect();
            let txn =
                Txn::new()
                    .when(conditions)
                    .and_then([put(OP, keys, &self.mine.after(before))?]);
            if !client.txn(OP, &txn).await?.succeeded() {
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

/// Marks the last term as ended if it is that of this lease, and deletes its entry in the same step.
pub(crate) async fn end(
    client: &Client,
    keys: &ElectionKeys,
    entry: &str,
    lease: i64,
) -> Result<()> {
    const OP: &str = "etcd: end term";
    let Some(found) = read(client, OP, keys).await? else {
        return Ok(());
    };
    let Some(term) = decode(&found).filter(|term| term.lease == lease && !term.ended) else {
        return Ok(());
    };
    let ended = Term {
        ended: true,
        ..term
    };
    let txn = Txn::new()
        .when([Compare::mod_revision(
            keys.term(),
            CompareOp::Equal,
            found.mod_revision(),
        )])
        .and_then([put(OP, keys, &ended)?, TxnOp::txn(delete(entry, lease))]);
    // If it was changed since, another term has begun, and nobody asks how ours ended.
    client.txn(OP, &txn).await.map(drop)
}

async fn read(client: &Client, op: &'static str, keys: &ElectionKeys) -> Result<Option<KeyValue>> {
    let mut answer = client
        .get(op, keys.term().as_bytes(), &GetOptions::new())
        .await?;
    Ok(answer.take_kvs().pop())
}

/// `None` if another program wrote something else there.
fn decode(found: &KeyValue) -> Option<Term> {
    serde_json::from_slice(found.value()).ok()
}

fn put(op: &'static str, keys: &ElectionKeys, term: &Term) -> Result<TxnOp> {
    let value = serde_json::to_vec(term)
        .map_err(|error| Error::new(ErrorKind::InvalidData, op).with_source(error))?;
    Ok(TxnOp::put(keys.term(), value, None))
}
