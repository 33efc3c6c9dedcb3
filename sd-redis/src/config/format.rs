//! The forms of a stored record.

use serde::Deserialize;

/// How records are stored. A registry reads and writes one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// The JSON form of an [`Instance`](sd_core::Instance), with all its fields, in a hash with an end for each record, and changes that are
    /// told.
    #[default]
    Json,
    /// A hash `grpc:services:<service>` of `{"ip":…,"port":…,"lastUpdate":…}`, as programs keep it that know nothing but addresses: a process that
    /// has not written for `heartbeat_ttl` is gone. Services cannot be listed, and operators can change nothing.
    Heartbeat,
}
