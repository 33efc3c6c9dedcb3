//! The kinds of checks.

use serde::Deserialize;

/// How Consul learns whether an instance is well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CheckKind {
    /// We say so before the time-to-live is over.
    #[default]
    Ttl,
    /// The agent asks the instance by gRPC's health protocol.
    Grpc,
    /// The agent asks the instance by HTTP.
    Http,
    /// The agent connects to the instance.
    Tcp,
}
