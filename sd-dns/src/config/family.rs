//! Which kinds of IP addresses are asked for.

use hickory_resolver::proto::rr::RecordType;
use serde::Deserialize;

/// Which kinds of IP addresses are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Family {
    /// IPv4 and IPv6. Written `any`.
    #[default]
    Any,
    /// IPv4 alone: AAAA records are not asked for. Written `ipv4`.
    Ipv4,
    /// IPv6 alone: A records are not asked for. Written `ipv6`.
    Ipv6,
}

impl Family {
    /// The record types that hold these addresses.
    pub(crate) fn types(self) -> &'static [RecordType] {
        match self {
            Self::Any => &[RecordType::A, RecordType::AAAA],
            Self::Ipv4 => &[RecordType::A],
            Self::Ipv6 => &[RecordType::AAAA],
        }
    }
}
