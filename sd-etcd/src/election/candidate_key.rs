//! A candidate's key at the server: what is under it, and what is before it.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, SortOrder, SortTarget, Txn, TxnOp};
use sd_backend::Place;
use sd_core::{Error, ErrorKind, FencingToken, Result};

use crate::client::Client;
use crate::client::answer::{Position, found_sets, position};
use crate::election::keys::ElectionKeys;

/// A key that was put on a lease of ours.
#[derive(Debug)]
pub(crate) struct CandidateKey {
    pub(crate) client: Arc<Client>,
    pub(crate) keys: ElectionKeys,
    pub(crate) key: String,
    pub(crate) lease: i64,
    pub(crate) ttl: Duration,
    /// Where in the cluster's history the key begins.
    pub(crate) created: Position,
    /// Whether its watches tell nothing, as on a connection that died on one side.
    #[cfg(test)]
    pub(crate) is_deaf: std::sync::atomic::AtomicBool,
}

/// What is before an entry in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// The key of the entry directly before it.
    pub(crate) next: Vec<u8>,
    /// The key of the one before that. If there is none, the next one leads.
    pub(crate) beyond: Option<Vec<u8>>,
    /// The revision at which that was read. What is before an entry only gets less.
    pub(crate) read_at: i64,
}

/// What a look at the own entry and the one before it finds.
#[derive(Debug)]
pub(crate) enum Check {
    Unchanged,
    /// The one before it is gone, or behind it now.
    Moved,
    /// Its own is not there any more.
    Gone(Error),
}

impl CandidateKey {
    /// The token of the term, if there will be one: who joins later has a later revision, and leads later.
    pub(crate) fn token(&self) -> FencingToken {
        let revision = self.created.revision.max(0).cast_unsigned();
        FencingToken::new(self.created.domain(), revision)
    }

    /// True in a transaction while the entry is there and ours.
    pub(crate) fn is_there(&self) -> [Compare; 2] {
        let key = self.key.as_str();
        [
            Compare::create_revision(key, CompareOp::Equal, self.created.revision),
            Compare::lease(key, CompareOp::Equal, self.lease),
        ]
    }

    /// Why the entry is gone, if what was found under its key is not it.
    pub(crate) fn loss(
        &self,
        op: &'static str,
        at: Position,
        found: Option<&KeyValue>,
    ) -> Option<Error> {
        let (kind, what) = match found {
            _ if at.cluster != self.created.cluster => (
                ErrorKind::Conflict,
                "was created in another cluster than the one that answers now",
            ),
            None => (ErrorKind::NotFound, "was deleted, or its lease expired"),
            Some(found) if found.create_revision() != self.created.revision => {
                (ErrorKind::Conflict, "was deleted and created again")
            }
            Some(found) if found.lease() != self.lease => {
                (ErrorKind::Conflict, "was taken over by another lease")
            }
            Some(_) => return None,
        };
        Some(Error::new(kind, op).because(format!("{} {what}", self.key)))
    }

    /// Reads whether the entry is there and which ones are before it. The server looks through all candidates for that.
    pub(crate) async fn look(&self, op: &'static str) -> Result<Place<Ahead>> {
        let (start, end) = self.keys.entries();
        let before = TxnOp::get(start, Some(self.before(2).with_range(end)));
        let (loss, at, [before]) = self.read_with_own(op, [before]).await?;
        let mut before = before.iter().map(|entry| entry.key().to_vec());
        Ok(match (loss, before.next()) {
            (Some(loss), _) => Place::Gone(loss),
            (None, Some(next)) => Place::Behind(Ahead {
                next,
                beyond: before.next(),
                read_at: at.revision,
            }),
            (None, None) => Place::First,
        })
    }

    /// The last ones before the entry, nearest first.
    fn before(&self, most: i64) -> GetOptions {
        GetOptions::new()
            .with_max_create_revision(self.created.revision - 1)
            .with_sort(SortTarget::Create, SortOrder::Descend)
            .with_limit(most)
            .with_keys_only()
    }

    /// Reads whether the entry is there, and whether the one that it waits for is still before it: that may have left, and have joined
    /// again behind it.
    pub(crate) async fn check(&self, op: &'static str, ahead: Option<&Ahead>) -> Result<Check> {
        let Some(ahead) = ahead else {
            let (loss, _, []) = self.read_with_own(op, []).await?;
            return Ok(loss.map_or(Check::Unchanged, Check::Gone));
        };
        let next = TxnOp::get(ahead.next.clone(), Some(key_only()));
        let (loss, _, [next]) = self.read_with_own(op, [next]).await?;
        let is_before = |next: &KeyValue| next.create_revision() < self.created.revision;
        Ok(match loss {
            Some(loss) => Check::Gone(loss),
            None if next.iter().any(is_before) => Check::Unchanged,
            None => Check::Moved,
        })
    }

    pub(crate) fn get_own(&self) -> TxnOp {
        TxnOp::get(self.key.as_str(), Some(key_only()))
    }

    /// Why the entry is gone, if it is, and what each further read finds: linearizable, as of one moment, which is told.
    async fn read_with_own<const N: usize>(
        &self,
        op: &'static str,
        reads: [TxnOp; N],
    ) -> Result<(Option<Error>, Position, [Vec<KeyValue>; N])> {
        let all: Vec<TxnOp> = std::iter::once(self.get_own()).chain(reads).collect();
        let txn = Txn::new().and_then(all);
        let answer = self.client.repeatable_txn(op, &txn).await?;
        let at = position(op, answer.header())?;
        let mut found = found_sets(&answer).into_iter();
        let own = found.next().unwrap_or_default();
        let loss = self.loss(op, at, own.first());
        let found = std::array::from_fn(|_| found.next().unwrap_or_default());
        Ok((loss, at, found))
    }
}

fn key_only() -> GetOptions {
    GetOptions::new().with_keys_only()
}

/// Deletes an entry if it hangs on this lease.
pub(crate) fn delete_entry(entry: &str, lease: i64) -> Txn {
    Txn::new()
        .when([Compare::lease(entry, CompareOp::Equal, lease)])
        .and_then([TxnOp::delete(entry, None)])
}
