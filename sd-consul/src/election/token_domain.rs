//! The name of the history that tokens are of. Consul has none that every server tells.

use sd_backend::history_name;
use sd_core::Result;

use crate::client::Client;
use crate::client::kv::{KvEntry, KvOp};
use crate::election::keys::ElectionKeys;

/// The name, written first if there is none.
pub(crate) async fn ensure(
    client: &Client,
    op: &'static str,
    keys: &ElectionKeys,
) -> Result<String> {
    let find = || find(client, op, keys);
    let write = async |name: String| {
        let name = name.into_bytes();
        // If it is refused, another candidate was faster.
        client
            .txn(op, &[KvOp::cas(keys.history(), 0, name)])
            .await
            .map(drop)
    };
    history_name(op, keys.history(), find, write).await
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
