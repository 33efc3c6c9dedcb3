//! Where the agent listens.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// One place to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// HTTP.
    Tcp(SocketAddr),
    /// HTTP over TLS.
    Tls(SocketAddr),
    /// HTTP over a Unix socket.
    Unix(PathBuf),
}

impl Listen {
    /// Whether only processes of this host can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) | Self::Tls(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Tls(address) => write!(f, "tls:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            // The length of `sun_path` on all systems, less its end and what a name that is not final needs.
            return if path.starts_with('/') && path.len() <= 90 {
                Ok(Self::Unix(path.into()))
            } else {
                Err("expected unix: and an absolute path of at most 90 bytes".to_owned())
            };
        }
        let (tls, address) = match text.strip_prefix("tls:") {
            Some(address) => (true, address),
            None => (false, text),
        };
        let address = match address.strip_prefix("localhost:").map(str::parse) {
            Some(Ok(port)) => Some((IpAddr::from(Ipv4Addr::LOCALHOST), port).into()),
            Some(Err(_)) => None,
            None => address.parse().ok(),
        };
        match (address, tls) {
            (Some(address), false) => Ok(Self::Tcp(address)),
            (Some(address), true) => Ok(Self::Tls(address)),
            (None, _) => Err(
                "expected an IP address with a port, as 127.0.0.1:15010, tls: before one, or unix:/path"
                    .to_owned(),
            ),
        }
    }
}
