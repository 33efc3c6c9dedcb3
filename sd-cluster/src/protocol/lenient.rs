//! What JSON of Go leaves out.

use serde::{Deserialize, Deserializer};

/// Takes `null` for nothing: in Go, a list that was never made is written that way.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
