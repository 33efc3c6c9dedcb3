//! Finding the address of this machine that others can dial.

use std::net::{IpAddr, SocketAddr};

use crate::error::{Error, ErrorKind, Result};
use crate::model::endpoint::Endpoint;

const OP: &str = "advertised address";

/// The endpoint to register for a server that listens on `listen`. If `listen` is unspecified (`0.0.0.0`, `[::]`), the first
/// address of a network interface replaces it, IPv4 before IPv6, never a loopback or link-local address. Otherwise it is
/// `listen` itself.
///
/// # Errors
/// `NotFound` if no interface has an address that clients can dial. `InvalidInput` for port 0.
pub fn advertised_address(listen: SocketAddr) -> Result<Endpoint> {
    if !listen.ip().is_unspecified() {
        return Endpoint::try_from(listen);
    }
    let interfaces = if_addrs::get_if_addrs()
        .map_err(|error| Error::new(ErrorKind::NotFound, OP).with_source(error))?;
    let addresses = interfaces
        .into_iter()
        .filter(if_addrs::Interface::is_oper_up)
        .map(|interface| interface.ip());
    let best = best(addresses, listen.is_ipv4()).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, OP)
            .because("no network interface has an address that clients can dial: name one yourself")
    })?;
    Endpoint::tcp(&best.to_string(), listen.port())
}

/// An IPv6 socket on `[::]` usually takes IPv4 as well; an IPv4 socket never takes IPv6.
fn best(addresses: impl Iterator<Item = IpAddr>, only_ipv4: bool) -> Option<IpAddr> {
    addresses
        .filter(|ip| !ip.is_loopback() && !is_link_local(*ip) && (ip.is_ipv4() || !only_ipv4))
        .min_by_key(IpAddr::is_ipv6)
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specified_address_is_taken_as_it_is() {
        let endpoint = advertised_address("127.0.0.1:80".parse().unwrap()).unwrap();
        assert_eq!(endpoint.to_string(), "127.0.0.1:80");
        assert!(advertised_address("127.0.0.1:0".parse().unwrap()).is_err());
    }

    #[test]
    fn loopback_and_link_local_addresses_are_never_advertised_and_ipv4_goes_first() {
        let all = [
            "127.0.0.1",
            "169.254.0.9",
            "fe80::1",
            "2001:db8::1",
            "10.0.0.7",
        ];
        let ips = |list: &[&str]| {
            list.iter()
                .map(|ip| ip.parse().unwrap())
                .collect::<Vec<IpAddr>>()
                .into_iter()
        };
        assert_eq!(best(ips(&all), false), Some("10.0.0.7".parse().unwrap()));
        assert_eq!(
            best(ips(&all[..4]), false),
            Some("2001:db8::1".parse().unwrap())
        );
        assert_eq!(best(ips(&all[..4]), true), None);
    }
}
