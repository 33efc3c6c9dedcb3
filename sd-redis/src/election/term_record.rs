//! Records a term under a key that has no lease, so that the record outlives the candidate.

use sd_backend::TermRecorder;
use sd_core::Result;
use sd_core::port::Predecessor;

use crate::client::Client;
use crate::election::candidate::RedisCandidate;
use crate::election::keys::ElectionKeys;
use crate::election::scripts;

/// Records that the term has begun, once; tells how the one before it ended. `None` if the record changed meanwhile, or the entry is not
/// the first any more.
pub(crate) async fn begin(
    recorder: &TermRecorder,
    candidate: &RedisCandidate,
) -> Result<Option<Predecessor>> {
    const OP: &str = "redis: record term";
    let keys = &candidate.keys;
    let write = async |found: Option<Vec<u8>>, record: Vec<u8>| {
        let (found, all) = (found.unwrap_or_default(), keys.queue_and_term());
        let args = [found.as_slice(), &record];
        let run = candidate.run(OP, &scripts::BEGIN_TERM, &all, &args);
        Ok(run.await?.0 == "ok")
    };
    let (token, read) = (candidate.token.value(), read(&candidate.client, OP, keys));
    recorder.begin(token, read, Vec::as_slice, write).await
}

/// The record, and what it is once the leader with this owner's entry has stopped. Both are empty if it is not that of its term.
pub(crate) async fn ended(
    client: &Client,
    keys: &ElectionKeys,
    owner: &str,
) -> Result<(Vec<u8>, Vec<u8>)> {
    const OP: &str = "redis: end term";
    let stored = read(client, OP, keys).await?.unwrap_or_default();
    match TermRecorder::ended(&stored, owner) {
        Some(ended) => Ok((stored, ended)),
        None => Ok(Default::default()),
    }
}

async fn read(client: &Client, op: &'static str, keys: &ElectionKeys) -> Result<Option<Vec<u8>>> {
    let mut said = client
        .run(op, &scripts::READ_TERM, &[&keys.term], &[])
        .await?;
    let stored = said.bytes()?;
    Ok(Some(stored).filter(|stored| !stored.is_empty()))
}
