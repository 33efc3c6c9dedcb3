//! Where a module serves.

use sd_core::{Address, Endpoint};
use serde::Serialize;

use crate::protocol::lenient::read_as_go;

/// Where a module serves, as modules write it. The port is a text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct AddressConfiguration {
    /// An IP address or a host name. Modules may write an IPv6 address in brackets.
    pub ip: String,
    /// The port, as decimal digits.
    pub port: String,
}

read_as_go!(AddressConfiguration {
    "ip" => ip,
    "port" => port,
});

impl AddressConfiguration {
    /// The address of an endpoint. `None` for a Unix socket, which no other host can reach.
    pub fn of(endpoint: &Endpoint) -> Option<Self> {
        match endpoint.address() {
            Address::Tcp { host, port } => Some(Self {
                ip: host.to_owned(),
                port: port.to_string(),
            }),
            _ => None,
        }
    }

    /// The endpoint at this address. An IPv6 address may have brackets: some modules write them to get past a service that cannot do
    /// without.
    ///
    /// # Errors
    /// `InvalidInput` if it cannot be dialled.
    pub fn endpoint(&self) -> sd_core::Result<Endpoint> {
        let port = self.port.parse::<u16>().map_err(|_| {
            sd_core::Error::invalid_input("cluster: address", "the port is no number up to 65535")
        })?;
        Endpoint::tcp(&self.ip, port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ip: &str, port: &str) -> AddressConfiguration {
        AddressConfiguration {
            ip: ip.to_owned(),
            port: port.to_owned(),
        }
    }

    #[test]
    fn an_address_is_that_of_its_endpoint_and_back() {
        for (ip, port, endpoint) in [
            ("10.0.0.1", "9999", "10.0.0.1:9999"),
            ("fe80::1", "81", "[fe80::1]:81"),
            ("host.local", "1", "host.local:1"),
        ] {
            let read = address(ip, port).endpoint().unwrap();
            assert_eq!(read.to_string(), endpoint);
            assert_eq!(AddressConfiguration::of(&read), Some(address(ip, port)));
        }
        let bracketed = address("[fe80::1]", "9999").endpoint().unwrap();
        assert_eq!(bracketed.to_string(), "[fe80::1]:9999");
        for (ip, port) in [
            ("", "1"),
            ("h", ""),
            ("h", "x"),
            ("h", "65536"),
            ("a b", "1"),
        ] {
            assert!(address(ip, port).endpoint().is_err(), "{ip} {port}");
        }
    }

    #[test]
    fn a_port_is_a_text_and_what_is_missing_is_empty() {
        let read = |json| serde_json::from_str::<AddressConfiguration>(json);
        assert!(read(r#"{"ip":"a","port":1}"#).is_err());
        assert_eq!(read(r#"{"ip":null}"#).unwrap(), address("", ""));
        assert_eq!(read(r#"{"IP":"a","Port":"1"}"#).unwrap(), address("a", "1"));
    }
}
