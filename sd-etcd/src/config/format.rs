//! The two forms of a stored record.

use serde::Deserialize;

/// How records are written. Both formats are always read, even side by side in one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// The JSON form of an [`Instance`](sd_core::Instance), with all its fields.
    #[default]
    Json,
    /// go-kit's plain value, `scheme://host:port`: an address and nothing else.
    GoKit,
}
