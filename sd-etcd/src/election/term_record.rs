//! Records a term under a key that hangs on no lease, so that the record outlives the entry.

use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, Txn, TxnOp};
use sd_backend::TermRecorder;
use sd_core::Result;
use sd_core::port::Predecessor;

use crate::client::Client;
use crate::election::candidate_key::{CandidateKey, delete_entry};
use crate::election::keys::ElectionKeys;

/// How a record names the entry on this lease.
pub(crate) fn entry_on(lease: i64) -> String {
    format!("{lease:x}")
}

/// Records that the term has begun, once; tells how the one before it ended. `None` if the record changed meanwhile, or the entry is
/// gone.
pub(crate) async fn begin(
    recorder: &TermRecorder,
    candidate: &CandidateKey,
) -> Result<Option<Predecessor>> {
    const OP: &str = "etcd: record term";
    let CandidateKey { client, keys, .. } = candidate;
    let write = async |found: Option<KeyValue>, record| {
        let [there, ours] = candidate.is_there();
        let unchanged = unchanged_since(found.as_ref(), keys);
        let put = TxnOp::put(keys.term(), record, None);
        let txn = Txn::new().when([there, ours, unchanged]).and_then([put]);
        Ok(client.txn(OP, &txn).await?.succeeded())
    };
    let (token, read) = (candidate.token().value(), read(client, OP, keys));
    recorder.begin(token, read, KeyValue::value, write).await
}

/// Marks the last term as ended if it is that of this lease, and deletes its entry in the same step.
pub(crate) async fn end(
    client: &Client,
    keys: &ElectionKeys,
    entry: &str,
    lease: i64,
) -> Result<()> {
    const OP: &str = "etcd: end term";
    let found = read(client, OP, keys).await?;
    let stored = found.as_ref().map(KeyValue::value);
    let Some(ended) = stored.and_then(|stored| TermRecorder::ended(stored, &entry_on(lease)))
    else {
        return Ok(());
    };
    let put = TxnOp::put(keys.term(), ended, None);
    let txn = Txn::new()
        .when([unchanged_since(found.as_ref(), keys)])
        .and_then([put, TxnOp::txn(delete_entry(entry, lease))]);
    // If it was changed since, another term has begun, and how ours ended does not matter any more.
    client.txn(OP, &txn).await.map(drop)
}

async fn read(client: &Client, op: &'static str, keys: &ElectionKeys) -> Result<Option<KeyValue>> {
    let mut answer = client
        .get(op, keys.term().as_bytes(), &GetOptions::new())
        .await?;
    Ok(answer.take_kvs().pop())
}

fn unchanged_since(found: Option<&KeyValue>, keys: &ElectionKeys) -> Compare {
    let revision = found.map_or(0, KeyValue::mod_revision);
    Compare::mod_revision(keys.term(), CompareOp::Equal, revision)
}
