//! The ways to log in.

use serde::Deserialize;

/// How user and password are shown to the server: the authentication scheme.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuthScheme {
    /// ZooKeeper's `digest`. The password is sent as it is, and the server takes any: it decides which nodes are ours.
    #[default]
    Digest,
    /// SASL with DIGEST-MD5. The password is not sent, and the server refuses one that its JAAS configuration does not have. Needs the
    /// feature `sasl`.
    Sasl,
}
