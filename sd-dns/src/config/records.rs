//! Which records tell of a service.

use serde::Deserialize;

/// Which records of a name tell of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Records {
    /// A and AAAA: addresses, which all serve at the port that the configuration names. Written `address`.
    #[default]
    Address,
    /// SRV: each record names a host, its port, a priority and a weight. Written `srv`.
    Srv,
}
