//! The forms of a stored record.

use serde::Deserialize;

/// How records are written. All of these are read, even side by side in one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// The JSON of Curator's service discovery. What Curator has no field for is in the payload.
    #[default]
    Curator,
    /// The JSON of reception: address, port and attributes, in a protected sequential node. It has no room for the incarnation, which is
    /// in the name of the node, nor for readiness, weight, priority, zone, version and tags.
    Reception,
    /// go-kit's plain value, `scheme://host:port`: an address and nothing else.
    GoKit,
}
