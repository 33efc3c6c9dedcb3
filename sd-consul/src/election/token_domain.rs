//! The name of the history that tokens are of: random, written by the first candidate, and gone with the data.
//!
//! Consul has none that every server tells. Without it, the tokens of servers that lost their data would look like old ones.

use sd_core::{Error, ErrorKind, Result};

use crate::client::Client;
use crate::client::kv::{KvEntry, KvOp};
use crate::election::keys::ElectionKeys;

/// How often it is read again because another candidate has just written it.
const MOST_ROUNDS: u32 = 3;

/// The name, written first if there is none.
pub(crate) async fn ensure(
    client: &Client,
    op: &'static str,
    keys: &ElectionKeys,
) -> Result<String> {
    for _ in 0..MOST_ROUNDS {
        if let Some(name) = find(client, op, keys).await? {
            return Ok(name);
        }
        let name = format!("{:016x}", fastrand::u64(..)).into_bytes();
        // If it is refused, another candidate was faster.
        client
            .txn(op, &[KvOp::cas(keys.history(), 0, name)])
            .await?;
    }
    Err(Error::new(ErrorKind::Unavailable, op).because(format!(
        "{} is missing after {MOST_ROUNDS} attempts to write it: look for a program that deletes it",
        keys.history()
    )))
}

/// The name, if there was an election.
pub(crate) async fn find(
    client: &Client,
    op: &'static str,
    keys: &ElectionKeys,
) -> Result<Option<String>> {
    let (found, _) = client.kv_get(op, keys.history()).await?;
    Ok(found.map(|found| read(&found)))
}

/// The name as it is stored.
pub(crate) fn read(stored: &KvEntry) -> String {
    String::from_utf8_lossy(&stored.value).into_owned()
}
