//! Keys and values that a program keeps in Consul beside its records, such as documents for gateways.
//!
//! All of it is in the datacenter of the registry. A change names what it is based on, so that no writer undoes what another one has written
//! meanwhile.

use sd_backend::backend_of;
use sd_core::{Error, Registry, Result};

use crate::backend::ConsulBackend;
use crate::client::Client;
use crate::client::kv::{KvOp, Txn};

const OPEN_WITH: &str = "sd_consul::connect";
/// More operations than this are refused by some versions of Consul.
const MOST_CHANGES: usize = 64;

/// A value, and the place of its last write in Consul's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The whole key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// Consul's `ModifyIndex`.
    pub modified: u64,
}

/// One change of a key that was last modified at a certain index. 0 stands for a key that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// Writes a value.
    Put {
        /// The whole key.
        key: String,
        /// The value.
        value: Vec<u8>,
        /// What the key was found at.
        modified: u64,
    },
    /// Deletes the key.
    Delete {
        /// The whole key.
        key: String,
        /// What the key was found at.
        modified: u64,
    },
}

/// Reads all keys that begin with `prefix`, after all writes that were confirmed before.
///
/// # Errors
/// `InvalidInput` if `registry` is not over Consul, or `prefix` is empty. Otherwise why Consul did not answer.
///
/// # Cancel safety
/// Cancel-safe.
pub async fn list_keys(registry: &Registry, prefix: &str) -> Result<Vec<KeyValue>> {
    const OP: &str = "consul: list keys";
    if prefix.is_empty() {
        return Err(Error::invalid_input(OP, "a prefix of keys is needed"));
    }
    let found = client(OP, registry)?.kv_list(OP, prefix).await?;
    let found = found.into_iter().map(|found| KeyValue {
        key: found.key,
        value: found.value,
        modified: found.modify_index,
    });
    Ok(found.collect())
}

/// Makes all of the changes, or none if one of the keys is not as it was found. Says which.
///
/// # Errors
/// `InvalidInput` if `registry` is not over Consul, or there are more than 64 changes. Otherwise why Consul did not answer: then the changes
/// may have been made.
///
/// # Cancel safety
/// After a dropped call the changes may have been made.
pub async fn change_keys(registry: &Registry, changes: &[KeyChange]) -> Result<bool> {
    const OP: &str = "consul: change keys";
    if changes.len() > MOST_CHANGES {
        let many = format!(
            "{} changes at once: Consul takes {MOST_CHANGES}",
            changes.len()
        );
        return Err(Error::invalid_input(OP, many));
    }
    let client = client(OP, registry)?;
    if changes.is_empty() {
        return Ok(true);
    }
    let steps = changes.iter().map(|change| match change {
        KeyChange::Put {
            key,
            value,
            modified,
        } => KvOp::cas(key, *modified, value.as_slice()),
        KeyChange::Delete { key, modified } => KvOp::delete_cas(key, *modified),
    });
    let done = client.txn(OP, &steps.collect::<Vec<_>>()).await?;
    Ok(matches!(done, Txn::Done(_)))
}

fn client<'a>(op: &'static str, registry: &'a Registry) -> Result<&'a Client> {
    let backend: &ConsulBackend = backend_of(op, registry, OPEN_WITH)?;
    Ok(&backend.client)
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    #[tokio::test]
    async fn what_cannot_be_asked_of_consul_is_refused_before_anything_is_sent() {
        let consul = crate::connect(crate::ConsulConfig::default()).unwrap();
        let memory = sd_core::memory::Memory::new().connect();
        let change = KeyChange::Delete {
            key: "k".to_owned(),
            modified: 1,
        };
        for refused in [
            list_keys(&memory, "k").await.map(drop),
            list_keys(&consul, "").await.map(drop),
            change_keys(&memory, &[]).await.map(drop),
            change_keys(&consul, &vec![change; MOST_CHANGES + 1])
                .await
                .map(drop),
        ] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert!(change_keys(&consul, &[]).await.unwrap());
    }
}
