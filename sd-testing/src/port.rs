//! Free TCP ports, for servers that need to be told their port.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Mutex;

use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, Result};

/// Below the ports that the kernel gives to outgoing connections (32768 and up on Linux). Such a connection could take the port
/// of a server that a test has just killed.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

const ATTEMPTS: usize = 1000;

/// The ports that this process has already handed out.
static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port of 127.0.0.1 on which no process listens. Each call in a process returns another port.
///
/// # Errors
/// `Unavailable` if no free port is found.
pub fn free_port() -> Result<u16> {
    let mut taken = lock(&TAKEN);
    for _ in 0..ATTEMPTS {
        let port = fastrand::u16(RANGE);
        if !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.insert(port);
            return Ok(port);
        }
    }
    Err(
        Error::new(ErrorKind::Unavailable, "free port").because(format!(
            "no free port found on 127.0.0.1 in {ATTEMPTS} attempts"
        )),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_are_free() {
        let ports: BTreeSet<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 50);
        for port in ports {
            TcpListener::bind(("127.0.0.1", port)).unwrap();
        }
    }
}
