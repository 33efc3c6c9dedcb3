//! Which kinds of IP addresses are asked for.

use std::net::IpAddr;

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

    /// Whether this address was asked for.
    pub(crate) fn includes(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Ipv4 => address.is_ipv4(),
            Self::Ipv6 => address.is_ipv6(),
        }
    }
}
