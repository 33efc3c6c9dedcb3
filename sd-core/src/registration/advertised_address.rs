//! Finding the address of this machine that others can dial.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::error::{Error, ErrorKind, Result};
use crate::model::endpoint::Endpoint;

const OP: &str = "advertised address";
/// Addresses that are in no network (RFC 5737, RFC 3849), so that only the default route leads there.
const ELSEWHERE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 9),
    SocketAddr::new(
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        9,
    ),
];

/// The endpoint to register for a server that listens on `listen`. If `listen` is unspecified (`0.0.0.0`, `[::]`), the address
/// that this machine has on its default route replaces it, IPv4 before IPv6. Without a default route, the only address that
/// others can dial does. Otherwise the endpoint is `listen` itself.
///
/// [`advertised_address_towards`] finds the address on the route to the registry, which is the better choice where the
/// default route leads into a VPN or out of the network of the callers.
///
/// Nothing is sent. It asks the operating system for its routes and does not block.
///
/// # Errors
/// `NotFound` if there is no address that others can dial, or several and no default route. `InvalidInput` for port 0.
pub fn advertised_address(listen: SocketAddr) -> Result<Endpoint> {
    advertise(listen, None)
}

/// As [`advertised_address`], with the address that this machine has on the route to `registry`. If the registry is on this
/// machine, or cannot be reached from `listen` (IPv4 only, say), the default route decides.
///
/// For a registry with a host name, resolve it first: `tokio::net::lookup_host("etcd.internal:2379")`.
///
/// # Errors
/// As [`advertised_address`].
pub fn advertised_address_towards(listen: SocketAddr, registry: SocketAddr) -> Result<Endpoint> {
    advertise(listen, Some(registry))
}

fn advertise(listen: SocketAddr, registry: Option<SocketAddr>) -> Result<Endpoint> {
    if !listen.ip().is_unspecified() {
        return Endpoint::try_from(listen);
    }
    let routes = registry.into_iter().chain(ELSEWHERE);
    // A route that does not exist has no source.
    let sources = routes.filter_map(|peer| source_towards(peer).ok());
    let best = choose(sources, interfaces, listen.is_ipv4())?;
    Endpoint::tcp(&best.to_string(), listen.port())
}

/// The address that this machine has on the route to `peer`. Connecting a UDP socket sends nothing: it chooses the route.
fn source_towards(peer: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(peer)?;
    Ok(socket.local_addr()?.ip())
}

/// The addresses of all interfaces that are up.
fn interfaces() -> Result<Vec<IpAddr>> {
    let found = if_addrs::get_if_addrs()
        .map_err(|error| Error::new(ErrorKind::NotFound, OP).with_source(error))?;
    let up = found.into_iter().filter(if_addrs::Interface::is_oper_up);
    Ok(up.map(|interface| interface.ip()).collect())
}

/// The first source of a route that others can dial; without one, the only such address of an interface. Which of several is
/// meant cannot be known: bridges of containers and tunnels are among them.
///
/// An IPv6 socket on `[::]` usually takes IPv4 as well; an IPv4 socket never takes IPv6.
fn choose(
    mut sources: impl Iterator<Item = IpAddr>,
    interfaces: impl FnOnce() -> Result<Vec<IpAddr>>,
    only_ipv4: bool,
) -> Result<IpAddr> {
    let is_usable = |ip: &IpAddr| is_global(*ip) && (ip.is_ipv4() || !only_ipv4);
    if let Some(source) = sources.find(is_usable) {
        return Ok(source);
    }
    let mut found: Vec<IpAddr> = interfaces()?.into_iter().filter(is_usable).collect();
    found.sort();
    found.dedup();
    // An interface has several IPv6 addresses, temporary ones among them.
    if found.iter().any(IpAddr::is_ipv4) {
        found.retain(IpAddr::is_ipv4);
    }
    let not_found = |why: String| Err(Error::new(ErrorKind::NotFound, OP).because(why));
    match found[..] {
        [only] => Ok(only),
        [] => not_found(
            "no network interface has an address that clients can dial: name one yourself".into(),
        ),
        _ => not_found(format!(
            "there is no default route, and this machine has the addresses {found:?}: name the one that clients can dial"
        )),
    }
}

/// Whether others can dial it, as far as the address itself tells.
fn is_global(ip: IpAddr) -> bool {
    let is_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(is_local || ip.is_loopback() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn chosen(sources: &[&str], interfaces: &[&str], only_ipv4: bool) -> Result<String> {
        let sources = ips(sources).into_iter();
        choose(sources, || Ok(ips(interfaces)), only_ipv4).map(|ip| ip.to_string())
    }

    #[test]
    fn a_specified_address_is_taken_as_it_is() {
        for towards in [None, Some("192.0.2.1:2379".parse().unwrap())] {
            let advertised = |listen: &str| advertise(listen.parse().unwrap(), towards);
            assert_eq!(
                advertised("127.0.0.1:80").unwrap().to_string(),
                "127.0.0.1:80"
            );
            assert!(advertised("127.0.0.1:0").is_err());
        }
    }

    #[test]
    fn the_route_decides_and_not_the_order_of_interfaces() {
        let interfaces = ["172.17.0.1", "10.8.0.6", "10.0.0.7", "2001:db8::1"];
        // Towards the registry, then by default.
        let routes = ["10.0.0.7", "192.168.1.5", "2001:db8::1"];
        assert_eq!(chosen(&routes, &interfaces, true).unwrap(), "10.0.0.7");
        assert_eq!(
            chosen(&routes[1..], &interfaces, false).unwrap(),
            "192.168.1.5"
        );
        assert_eq!(
            chosen(&routes[2..], &interfaces, false).unwrap(),
            "2001:db8::1"
        );
    }

    #[test]
    fn a_route_to_this_machine_itself_tells_nothing_and_the_next_one_decides() {
        let routes = [
            "127.0.0.1",
            "169.254.0.9",
            "fe80::1",
            "0.0.0.0",
            "::1",
            "10.0.0.7",
        ];
        assert_eq!(chosen(&routes, &[], true).unwrap(), "10.0.0.7");
        assert!(chosen(&["2001:db8::1"], &[], true).is_err());
    }

    #[test]
    fn without_a_route_only_one_address_is_no_guess() {
        let one = [
            "127.0.0.1",
            "fe80::1",
            "2001:db8::1",
            "10.0.0.7",
            "10.0.0.7",
        ];
        assert_eq!(chosen(&[], &one, false).unwrap(), "10.0.0.7");
        assert_eq!(chosen(&[], &one[..3], false).unwrap(), "2001:db8::1");
        for (interfaces, why) in [
            (&one[..2], "no network interface"),
            (&["172.17.0.1", "10.0.0.7"], "10.0.0.7"),
        ] {
            let error = chosen(&[], interfaces, false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            let report = error.report().to_string();
            assert!(report.contains(why), "{report}");
        }
    }

    #[test]
    fn the_operating_system_tells_the_source_of_a_route_and_nothing_is_sent() {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_nonblocking(true).unwrap();
        let source = source_towards(peer.local_addr().unwrap()).unwrap();
        assert_eq!(source, IpAddr::V4(Ipv4Addr::LOCALHOST));
        let received = peer.recv(&mut [0; 1]).unwrap_err();
        assert_eq!(received.kind(), io::ErrorKind::WouldBlock);
    }

    /// What this machine's routes are is not known here, but what they say is an address of an interface.
    #[test]
    fn what_is_advertised_is_an_address_of_this_machine_that_others_can_dial() {
        let listen = "0.0.0.0:80".parse().unwrap();
        let local = "127.0.0.1:2379".parse().unwrap();
        for advertised in [
            advertised_address(listen),
            advertised_address_towards(listen, local),
        ] {
            match advertised {
                Ok(endpoint) => {
                    let address: SocketAddr = endpoint.to_string().parse().unwrap();
                    assert!(is_global(address.ip()), "{address}");
                    assert!(interfaces().unwrap().contains(&address.ip()), "{address}");
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
            }
        }
    }
}
