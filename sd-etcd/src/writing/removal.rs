//! Removing one record on purpose, unless it changes meanwhile.
//!
//! A server whose database is full takes no value any more, also not the one that tells readers of the removal. Some versions then
//! refuse every transaction. But a lease can always be revoked.

use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp};
use sd_backend::{Record, hinted};
use sd_core::{Error, ErrorKind, Result};
use tracing::debug;

use crate::client::Client;
use crate::client::answer::position;
use crate::client::error::{FULL, is_full, is_unreachable};
use crate::codec::is_json;
use crate::codec::json::encode_withdrawn;

/// How often a write starts over because the key changed between a read and the write.
pub(crate) const MOST_ROUNDS: u32 = 5;

/// What is removed, and for which request.
#[derive(Debug)]
pub(crate) struct Removal<'a> {
    pub(crate) client: &'a Client,
    pub(crate) op: &'static str,
    pub(crate) key: &'a str,
    /// What lies where its override does, if that matters.
    pub(crate) beside: Option<Beside<'a>>,
}

/// The place of an override.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside<'a> {
    pub(crate) key: &'a str,
    /// When it was written last; 0 if nothing is there.
    pub(crate) revision: i64,
    /// Whether it is an override, which goes with the record.
    pub(crate) is_override: bool,
}

impl Removal<'_> {
    /// Tells readers that what was found there goes on purpose, if it is a record of ours and the server takes that. Returns its
    /// modification after that; `None` if it changed meanwhile.
    pub(crate) async fn announce(
        &self,
        found: &KeyValue,
        stored: Option<&Record>,
    ) -> Result<Option<i64>> {
        let last = found.mod_revision();
        let Some(Record::Live(instance)) = stored.filter(|_| is_json(found.value())) else {
            return Ok(Some(last));
        };
        let tombstone = encode_withdrawn(instance)
            .map_err(|error| Error::new(ErrorKind::InvalidData, self.op).with_source(error))?;
        let keep_lease = PutOptions::new().with_ignore_lease();
        let put = TxnOp::put(self.key, tombstone, Some(keep_lease));
        match self.if_unchanged(last, vec![put]).await {
            Err(error) if !is_unreachable(&error) => {
                debug!(error = %error.report(), "a removal goes on without being announced");
                Ok(Some(last))
            }
            announced => announced,
        }
    }

    /// Deletes what was found there and was last modified at `revision`, together with its override. Says whether all was as it was
    /// found.
    pub(crate) async fn delete(&self, found: &KeyValue, revision: i64) -> Result<bool> {
        let keys: Vec<&str> = self.going().collect();
        let deletions = keys.into_iter().map(|key| TxnOp::delete(key, None));
        match self.if_unchanged(revision, deletions.collect()).await {
            Err(error) if is_full(&error) => {
                self.revoke_lease(found.lease(), &error).await?;
                Ok(true)
            }
            deleted => deleted.map(|at| at.is_some()),
        }
    }

    /// The keys that go.
    fn going(&self) -> impl Iterator<Item = &str> {
        let overridden = self.beside.filter(|beside| beside.is_override);
        std::iter::once(self.key).chain(overridden.map(|beside| beside.key))
    }

    /// Ends the lease of a record whose deletion was `refused`, if nothing else hangs on it.
    async fn revoke_lease(&self, lease: i64, refused: &Error) -> Result<()> {
        let cannot = |why: &str| {
            let said = std::error::Error::source(refused).and_then(std::error::Error::source);
            let said = said.map_or_else(String::new, |said| format!(" ({said})"));
            let text = format!("{} was not deleted{said}, and {why}", self.key);
            Error::new(refused.kind(), self.op).with_source(hinted(FULL, text))
        };
        if lease == 0 {
            return Err(cannot("it has no lease that could be revoked instead"));
        }
        let lease_at_server = self.client.lease(self.op, lease).await?;
        let attached = lease_at_server.map(|told| told.keys).unwrap_or_default();
        let goes = |key: &Vec<u8>| self.going().any(|going| going.as_bytes() == key);
        if !attached.iter().all(goes) {
            return Err(cannot("its lease keeps other keys as well"));
        }
        self.client.revoke(self.op, lease).await
    }

    /// Takes these steps if the key was last changed at `revision`, and what lies beside it is as it was. Returns their revision; `None`
    /// if they were not taken.
    async fn if_unchanged(&self, revision: i64, steps: Vec<TxnOp>) -> Result<Option<i64>> {
        let beside = self.beside.map(|beside| (beside.key, beside.revision));
        let unchanged = std::iter::once((self.key, revision)).chain(beside);
        let unchanged = unchanged.map(|(key, at)| Compare::mod_revision(key, CompareOp::Equal, at));
        let txn = Txn::new()
            .when(unchanged.collect::<Vec<_>>())
            .and_then(steps);
        let answer = self.client.txn(self.op, &txn).await?;
        let at = position(self.op, answer.header())?;
        Ok(answer.succeeded().then_some(at.revision))
    }
}

pub(crate) fn changes_too_fast(op: &'static str, key: &str) -> Error {
    Error::new(ErrorKind::Unavailable, op).because(format!(
        "{key} changed between read and write {MOST_ROUNDS} times in a row"
    ))
}
