//! Who may use the nodes that we make.

use serde::Deserialize;

/// Who may read and change the nodes that we make: their access control list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Access {
    /// Every client, as Curator has it by default.
    #[default]
    Open,
    /// Every client may read, and only clients with our login, or with a certificate for the same subject, may change.
    ReadOnly,
    /// Only clients with our login, or with a certificate for the same subject, may read or change.
    Private,
}
