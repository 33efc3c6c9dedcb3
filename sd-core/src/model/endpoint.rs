//! The address at which an instance can be dialled.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

use crate::brief::quoted;
use crate::error::{Error, Result};
use crate::model::checked::read_checked;
use crate::printable::{Printable, breaks_lines};

const OP: &str = "endpoint";
const MAX_HOST_BYTES: usize = 253;
/// The longest path that fits into a `sockaddr_un`.
const MAX_UNIX_PATH_BYTES: usize = 107;

/// An address that clients can dial, written `host:port`, `[ipv6]:port` or `unix:/path`.
///
/// An endpoint never has port 0, an empty host, or an address that no client could dial: an unspecified one (`0.0.0.0`, `[::]`), multicast,
/// broadcast, or digits and dots that are no IPv4 address, such as `127.1`, which some programs read as another one.
/// [`advertised_address`](crate::advertised_address) finds an address that clients can dial.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct Endpoint(Inner);

read_checked!(Endpoint);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Inner {
    Tcp { host: Box<str>, port: u16 },
    Unix { path: PathBuf },
}

/// The parts of an [`Endpoint`], for a connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address<'a> {
    /// A TCP address. `host` is a name or an IP address without brackets.
    Tcp {
        /// A name or an IP address without brackets.
        host: &'a str,
        /// Never 0.
        port: u16,
    },
    /// A Unix domain socket.
    Unix {
        /// An absolute path.
        path: &'a Path,
    },
}

impl Endpoint {
    /// A TCP endpoint. `host` is a name or an IP address, IPv6 with or without brackets, of 1 to 253 bytes.
    ///
    /// # Errors
    /// `InvalidInput` for port 0, an address that cannot be dialled, or an invalid host.
    pub fn tcp(host: &str, port: u16) -> Result<Self> {
        check_has_no_user(host)?;
        let host = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        if port == 0 {
            return Err(Error::invalid_input(
                OP,
                format!(
                    "{} cannot be dialled: give the port that the server listens on",
                    quoted(&format!("{host}:0"))
                ),
            ));
        }
        if host.is_empty() || host.len() > MAX_HOST_BYTES {
            return Err(Error::invalid_input(
                OP,
                format!(
                    "the host must have 1 to {MAX_HOST_BYTES} bytes, not {}",
                    host.len()
                ),
            ));
        }
        match host.parse::<IpAddr>() {
            Ok(address) if is_of_no_host(address) => {
                return Err(Error::invalid_input(
                    OP,
                    format!(
                        "{host} is not an address that clients can dial: give the address of an interface"
                    ),
                ));
            }
            Ok(_) => {}
            Err(_) if host.chars().all(|c| c.is_ascii_digit() || c == '.') => {
                return Err(Error::invalid_input(
                    OP,
                    format!(
                        "{} is no IPv4 address: write all four numbers, without leading zeros",
                        quoted(host)
                    ),
                ));
            }
            Err(_)
                if host
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) => {}
            Err(_) => {
                return Err(Error::invalid_input(
                    OP,
                    format!("{} is neither a host name nor an IP address", quoted(host)),
                ));
            }
        }
        Ok(Self(Inner::Tcp {
            host: host.into(),
            port,
        }))
    }

    /// A Unix domain socket. Slashes that begin the path count as one.
    ///
    /// # Errors
    /// `InvalidInput` unless `path` is absolute, UTF-8, on one line without control characters, and at most 107 bytes long, the limit of
    /// a socket address.
    pub fn unix(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let Some(text) = path.to_str() else {
            return Err(Error::invalid_input(
                OP,
                "the path of the Unix socket is not UTF-8",
            ));
        };
        if !path.is_absolute() || text.len() > MAX_UNIX_PATH_BYTES {
            return Err(Error::invalid_input(
                OP,
                format!(
                    "the path of the Unix socket, {}, must be absolute and have at most {MAX_UNIX_PATH_BYTES} bytes",
                    quoted(text)
                ),
            ));
        }
        if let Some(odd) = text.chars().find(|c| breaks_lines(*c)) {
            return Err(Error::invalid_input(
                OP,
                format!(
                    "the path of the Unix socket, {}, contains {odd:?}: control characters and line ends are not allowed",
                    quoted(text)
                ),
            ));
        }
        // Two would be read as those of `unix:///path`.
        let path = format!("/{}", text.trim_start_matches('/')).into();
        Ok(Self(Inner::Unix { path }))
    }

    /// The parts, for a connector.
    pub fn address(&self) -> Address<'_> {
        match &self.0 {
            Inner::Tcp { host, port } => Address::Tcp { host, port: *port },
            Inner::Unix { path } => Address::Unix { path },
        }
    }

    /// The port of a TCP endpoint. `None` for a Unix domain socket.
    pub fn port(&self) -> Option<u16> {
        match self.address() {
            Address::Tcp { port, .. } => Some(port),
            Address::Unix { .. } => None,
        }
    }
}

/// Whether no host has this address alone.
fn is_of_no_host(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    address.is_unspecified() || address.is_multicast() || is_broadcast
}

/// What stands before an `@` may be a password, and is not repeated.
fn check_has_no_user(text: &str) -> Result<()> {
    if text.contains('@') {
        return Err(Error::invalid_input(
            OP,
            "contains an '@': write host:port, without a user name or password",
        ));
    }
    Ok(())
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix { path } => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Printable(&self.to_string()))
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix("unix:") {
            // A host may have this name.
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty() => {}
            // gRPC writes `unix:///path`.
            Some(path) => return Self::unix(path.strip_prefix("//").unwrap_or(path)),
            None => {}
        }
        check_has_no_user(text)?;
        if text.contains("://") {
            return Err(Error::invalid_input(
                OP,
                format!(
                    "{} is a URL: write host:port, without a scheme",
                    quoted(text)
                ),
            ));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(Error::invalid_input(
                OP,
                format!("{} has no port: write host:port", quoted(text)),
            ));
        };
        if host.contains(':') && !host.starts_with('[') {
            return Err(Error::invalid_input(
                OP,
                format!(
                    "{} has an IPv6 address without brackets: write [::1]:80",
                    quoted(text)
                ),
            ));
        }
        // `u16::from_str` accepts a leading plus sign, which is no port.
        let port = port
            .parse::<u16>()
            .ok()
            .filter(|_| port.bytes().all(|b| b.is_ascii_digit()));
        let Some(port) = port else {
            return Err(Error::invalid_input(
                OP,
                format!(
                    "{} needs a port between 1 and 65535 after its last colon",
                    quoted(text)
                ),
            ));
        };
        Self::tcp(host, port)
    }
}

impl TryFrom<&str> for Endpoint {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        text.parse()
    }
}

impl TryFrom<&String> for Endpoint {
    type Error = Error;

    fn try_from(text: &String) -> Result<Self> {
        text.parse()
    }
}

impl From<&Endpoint> for Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        endpoint.clone()
    }
}

impl TryFrom<String> for Endpoint {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl TryFrom<SocketAddr> for Endpoint {
    type Error = Error;

    fn try_from(address: SocketAddr) -> Result<Self> {
        Self::tcp(&address.ip().to_string(), address.port())
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in [
            "10.0.0.7:50051",
            "[::1]:80",
            "host-1.example:1",
            "1.host:1",
            "169.254.1.1:80",
            "unix:80",
            "unix:/run/greeter.sock",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!(
            "unix:///run/x".parse::<Endpoint>().unwrap().to_string(),
            "unix:/run/x"
        );
    }

    #[test]
    fn an_endpoint_is_made_of_text_of_a_socket_address_and_of_an_endpoint() {
        fn made(endpoint: impl TryInto<Endpoint, Error: Into<Error>>) -> String {
            endpoint.try_into().map_err(Into::into).unwrap().to_string()
        }
        let text = "[::1]:80".to_owned();
        let socket: SocketAddr = text.parse().unwrap();
        let endpoint: Endpoint = text.parse().unwrap();
        for made in [
            made("[::1]:80"),
            made(&text),
            made(text.clone()),
            made(socket),
            made(&endpoint),
            made(endpoint.clone()),
        ] {
            assert_eq!(made, text);
        }
    }

    #[test]
    fn refuses_what_cannot_be_dialled_and_says_what_to_write() {
        for (text, hint) in [
            ("10.0.0.7:0", "port"),
            ("0.0.0.0:80", "interface"),
            ("[::]:80", "interface"),
            ("[::ffff:0.0.0.0]:80", "interface"),
            ("224.0.0.1:80", "interface"),
            ("[ff02::1]:80", "interface"),
            ("255.255.255.255:80", "interface"),
            ("127.1:80", "four numbers"),
            ("2130706433:80", "four numbers"),
            ("10.0.0.07:80", "four numbers"),
            ("10.0.0.7.:80", "four numbers"),
            ("host", "host:port"),
            ("::1:80", "brackets"),
            ("http://10.0.0.1:80", "without a scheme"),
            ("https://host", "without a scheme"),
            (":80", "host"),
            ("a b:80", "neither"),
            ("host:99999", "65535"),
            ("host:+80", "65535"),
            ("unix:relative", "absolute"),
            ("unix:", "absolute"),
            ("unix:/run/a\u{1b}[2J", "control"),
            ("unix:/run/a\nb", "control"),
            ("unix:/run/a\u{9b}2J", "control"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().report().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn a_path_that_would_reorder_a_line_is_escaped_for_developers_and_kept_for_connectors() {
        let endpoint = Endpoint::unix("/run/\u{202e}x").unwrap();
        assert_eq!(format!("{endpoint:?}"), r"unix:/run/\u{202e}x");
        assert_eq!(endpoint.to_string(), "unix:/run/\u{202e}x");
    }

    /// Hosts and paths that resemble the forms in which they are written.
    fn made() -> impl Strategy<Value = Result<Endpoint>> {
        let host = "unix|\\[?(::1|fe80::[0-9a-f]{1,4}|::ffff:10\\.0\\.0\\.7)\\]?|[0-9.]{1,12}|[a-zA-Z0-9._-]{1,12}|\\PC{0,12}";
        let tcp = (host, any::<u16>()).prop_map(|(host, port)| Endpoint::tcp(&host, port));
        let unix = "/{0,5}(\\PC|[/.:0-9]){0,20}".prop_map(Endpoint::unix);
        prop_oneof![tcp, unix]
    }

    proptest! {
        #[test]
        fn the_text_form_of_every_endpoint_reads_back_as_itself(endpoint in made()) {
            if let Ok(endpoint) = endpoint {
                let text = endpoint.to_string();
                prop_assert_eq!(text.parse::<Endpoint>().unwrap(), endpoint.clone());
                let json = serde_json::to_string(&endpoint).unwrap();
                prop_assert_eq!(serde_json::from_str::<Endpoint>(&json).unwrap(), endpoint);
            }
        }

        #[test]
        fn any_text_is_read_or_refused_and_what_was_read_reads_again(text in "\\PC{0,40}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
            }
        }
    }
}
