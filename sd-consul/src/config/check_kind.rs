//! How Consul checks instances.

use serde::Deserialize;

/// How Consul learns whether an instance is healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CheckKind {
    /// This process passes the check before its time-to-live is over.
    #[default]
    Ttl,
    /// The agent uses gRPC's health checking protocol.
    Grpc,
    /// The agent sends an HTTP request.
    Http,
    /// The agent opens a TCP connection.
    Tcp,
}
