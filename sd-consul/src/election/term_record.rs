//! Records a term under a key that is never locked, so that the record outlives the session.

use sd_backend::TermRecorder;
use sd_core::Result;
use sd_core::port::Predecessor;

use crate::client::Client;
use crate::client::kv::{KvEntry, KvOp, Txn};
use crate::election::keys::ElectionKeys;

/// Records that the term of this token has begun, once, if our session still leads; tells how the one before it ended. `None` if the
/// record or the leader changed meanwhile.
pub(crate) async fn begin(
    recorder: &TermRecorder,
    client: &Client,
    keys: &ElectionKeys,
    session: &str,
    token: u64,
) -> Result<Option<Predecessor>> {
    const OP: &str = "consul: record term";
    let read = async { Ok(client.kv_get(OP, keys.term()).await?.0) };
    let write = async |found: Option<KvEntry>, record: Vec<u8>| {
        let unchanged = found.map_or(0, |found| found.modify_index);
        let put = KvOp::cas(keys.term(), unchanged, record);
        let steps = [KvOp::check_session(keys.leader(), session), put];
        Ok(matches!(client.txn(OP, &steps).await?, Txn::Done(_)))
    };
    recorder
        .begin(token, read, |found| &found.value, write)
        .await
}

/// Marks the last term as ended if it is that of this session, whose leader has stopped. Releases the lead in the same step, if the
/// session still has it, and says whether it did.
pub(crate) async fn end(client: &Client, keys: &ElectionKeys, session: &str) -> Result<bool> {
    const OP: &str = "consul: end term";
    let (found, _) = client.kv_get(OP, keys.term()).await?;
    let Some(found) = found else {
        return Ok(false);
    };
    let Some(ended) = TermRecorder::ended(&found.value, session) else {
        return Ok(false);
    };
    let mark = || KvOp::cas(keys.term(), found.modify_index, &ended);
    let release = KvOp::unlock(keys.leader(), session, Vec::new());
    if let Txn::Done(_) = client.txn(OP, &[release, mark()]).await? {
        return Ok(true);
    }
    // The session has ended already. If the record was changed since, another term has begun, and it no longer matters how ours ended.
    client.txn(OP, &[mark()]).await?;
    Ok(false)
}
