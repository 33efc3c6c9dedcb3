//! Free TCP ports, for servers that need to be told their port.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::sync::Mutex;

use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, Result};

/// Below the ports that the kernel gives to outgoing connections (32768 and up on Linux). Such a connection could take the port
/// of a server that a test has just killed.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

const ATTEMPTS: usize = 1000;

/// The ports that this process has already handed out.
static TAKEN: Mutex<BTreeMap<u16, Reservation>> = Mutex::new(BTreeMap::new());

/// A port of 127.0.0.1 on which no process listens. Each call in a process returns another port, and on Linux no other process on the
/// machine gets it from this function as long as this one lives.
///
/// # Errors
/// `Unavailable` if no free port is found.
pub fn free_port() -> Result<u16> {
    let mut taken = lock(&TAKEN);
    for _ in 0..ATTEMPTS {
        let port = fastrand::u16(RANGE);
        if taken.contains_key(&port) {
            continue;
        }
        let Ok(reservation) = Reservation::of(port) else {
            continue;
        };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.insert(port, reservation);
            return Ok(port);
        }
    }
    Err(
        Error::new(ErrorKind::Unavailable, "free port").because(format!(
            "no free port found on 127.0.0.1 in {ATTEMPTS} attempts"
        )),
    )
}

/// Keeps other test programs, which choose from the same ports, from one on which a server is about to listen, or to listen again.
#[derive(Debug)]
struct Reservation {
    #[cfg(target_os = "linux")]
    _name: std::os::unix::net::UnixListener,
}

#[cfg(target_os = "linux")]
impl Reservation {
    /// Takes a name in the kernel that goes with this process, however it ends.
    fn of(port: u16) -> io::Result<Self> {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixListener};

        let name = SocketAddr::from_abstract_name(format!("sd-testing/port/{port}"))?;
        Ok(Self {
            _name: UnixListener::bind_addr(&name)?,
        })
    }
}

#[cfg(not(target_os = "linux"))]
impl Reservation {
    #[expect(clippy::unnecessary_wraps, reason = "on Linux it can fail")]
    fn of(_port: u16) -> io::Result<Self> {
        Ok(Self {})
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_differ_and_are_free() {
        let ports: BTreeSet<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 50);
        for port in ports {
            TcpListener::bind(("127.0.0.1", port)).unwrap();
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_port_that_was_handed_out_is_reserved_also_while_nothing_listens_there() {
        let port = free_port().unwrap();
        let reserved = Reservation::of(port).unwrap_err();
        assert_eq!(reserved.kind(), io::ErrorKind::AddrInUse);
    }
}
