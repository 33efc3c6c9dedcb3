//! How resolvers are spoken to.

use serde::Deserialize;

/// How resolvers are spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Transport {
    /// Over UDP, and over TCP where an answer does not fit into a datagram. Written `auto`.
    #[default]
    Auto,
    /// Over TCP alone, for servers that leave records out of a datagram without saying so. Written `tcp`.
    Tcp,
    /// Over TLS (RFC 7858), with the feature `tls`. Written `tls`.
    Tls,
}
