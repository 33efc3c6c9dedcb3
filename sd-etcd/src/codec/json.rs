//! Our own form of a stored record: the JSON of an [`Instance`], with a mark beside its fields while it is withdrawn.

use sd_core::Instance;
use serde::{Deserialize, Serialize};

/// The mark of a record that is being withdrawn, beside the fields of the instance.
#[derive(Serialize)]
struct Tombstone<'a> {
    #[serde(flatten)]
    instance: &'a Instance,
    withdrawn: bool,
}

#[derive(Deserialize)]
struct Mark {
    #[serde(default)]
    withdrawn: bool,
}

/// The value of a record that is about to be deleted. Readers that do not know the mark see an instance that is not ready.
pub(crate) fn encode_withdrawn(instance: &Instance) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Tombstone {
        instance: &instance.clone().with_ready(false),
        withdrawn: true,
    })
}

/// The instance that `value` says, and whether it is being withdrawn. An error says why it cannot be understood.
pub(crate) fn decode(value: &[u8]) -> Result<(Instance, bool), String> {
    let instance: Instance = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let mark: Mark = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    Ok((instance, mark.withdrawn))
}
