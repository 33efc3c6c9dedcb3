//! The addresses of servers.

use std::fmt;
use std::ops::Deref;

use sd_core::{Endpoint, Result};
use serde::Deserialize;

use crate::rules::Rules;

const KEY: &str = "endpoints";

/// The servers of a registry, as the setting `endpoints` names them: [completed](Self::complete) to URLs if they speak HTTP or
/// gRPC, otherwise to [addresses](Self::addresses). `Debug` hides everything before an `@`: users may put a password or a token
/// there, although it does not belong there.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Servers(Vec<String>);

impl Servers {
    /// Completes each server to `http://host:port` or `https://host:port`. A server without a scheme gets `https` if
    /// `wants_tls` is true, else `http`. A server without a port gets `default_port(tls)`. The caller checks whether there must
    /// be a server at all.
    ///
    /// # Errors
    /// `InvalidInput` if a server cannot be dialled, contradicts `wants_tls`, or speaks TLS while another does not. Servers may
    /// then be partly completed: discard them. The error repeats no server, because of what may stand before an `@`.
    pub fn complete(
        &mut self,
        rules: Rules,
        wants_tls: Option<bool>,
        default_port: impl Fn(bool) -> u16,
    ) -> Result<()> {
        for server in &mut self.0 {
            *server = full_url(server, wants_tls, &default_port)
                .map_err(|rule| rules.broken(KEY, rule))?;
        }
        if self.speak_tls() && !self.iter().all(|server| is_secure(server)) {
            return Err(rules.broken(
                KEY,
                "some are https:// and some are not: write all or none with https",
            ));
        }
        Ok(())
    }

    /// The addresses of servers that do not speak HTTP: `host`, `host:port`, `[ipv6]` or `[ipv6]:port`. A server without a port
    /// gets `default_port`. The caller checks whether there must be a server at all.
    ///
    /// # Errors
    /// `InvalidInput` if a server has a scheme or cannot be dialled. The error repeats no server, because of what may stand before
    /// an `@`.
    pub fn addresses(&self, rules: Rules, default_port: u16) -> Result<Vec<Endpoint>> {
        self.addresses_for(KEY, rules, default_port)
    }

    /// As [`addresses`](Self::addresses), of servers that the setting `key` names.
    ///
    /// # Errors
    /// As [`addresses`](Self::addresses).
    pub fn addresses_for(
        &self,
        key: &str,
        rules: Rules,
        default_port: u16,
    ) -> Result<Vec<Endpoint>> {
        let address = |server: &String| {
            let address = if server.contains("://") {
                Err("one has a scheme: write host:port")
            } else {
                dialled(server, default_port)
            };
            address.map_err(|rule| rules.broken(key, rule))
        };
        self.iter().map(address).collect()
    }

    /// Whether the [completed](Self::complete) servers speak TLS.
    pub fn speak_tls(&self) -> bool {
        self.iter().any(|server| is_secure(server))
    }
}

fn is_secure(server: &str) -> bool {
    server.starts_with("https://")
}

/// The full URL, or what is wrong with `server`, without repeating it.
fn full_url(
    server: &str,
    wants_tls: Option<bool>,
    default_port: &impl Fn(bool) -> u16,
) -> Result<String, &'static str> {
    let (secure, address) = match server.split_once("://") {
        Some(("http", _)) if wants_tls == Some(true) => {
            return Err("one is http://, but the configuration asks for TLS: write https://");
        }
        Some(("https", _)) if wants_tls == Some(false) => {
            return Err("one is https://, but tls is off: turn it on or write http://");
        }
        Some(("http", address)) => (false, address),
        Some(("https", address)) => (true, address),
        None => (wants_tls.unwrap_or(false), server),
        Some(_) => {
            return Err("one has an unknown scheme: write http://host:port or https://host:port");
        }
    };
    let address = address.strip_suffix('/').unwrap_or(address);
    let address = dialled(address, default_port(secure))?;
    let scheme = if secure { "https" } else { "http" };
    Ok(format!("{scheme}://{address}"))
}

/// The TCP address that `text` names, or what is wrong with it, without repeating it.
fn dialled(text: &str, default_port: u16) -> Result<Endpoint, &'static str> {
    let has_port = text
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.contains(']'));
    let parsed = if has_port {
        text.parse::<Endpoint>()
    } else {
        Endpoint::tcp(text, default_port)
    };
    parsed
        .ok()
        .filter(|parsed| parsed.port().is_some())
        .ok_or("one cannot be dialled: write host:port, and an IPv6 address in brackets")
}

impl<S: Into<String>> FromIterator<S> for Servers {
    fn from_iter<I: IntoIterator<Item = S>>(servers: I) -> Self {
        Self(servers.into_iter().map(Into::into).collect())
    }
}

impl Deref for Servers {
    type Target = [String];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().map(|server| match server.rsplit_once('@') {
            Some((_, host)) => format!("***@{host}"),
            None => server.clone(),
        });
        f.debug_list().entries(shown).finish()
    }
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    const RULES: Rules = Rules::new("newdb: configuration");

    fn complete<const N: usize>(servers: [&str; N], wants_tls: Option<bool>) -> Result<Servers> {
        let mut servers = Servers::from_iter(servers);
        let default_port = |tls| if tls { 8501 } else { 8500 };
        servers.complete(RULES, wants_tls, default_port)?;
        Ok(servers)
    }

    #[test]
    fn scheme_and_port_are_completed_and_slashes_dropped() {
        let plain = complete(["h1", "http://h2:1", "[::1]", "http://h3/"], None).unwrap();
        let full = [
            "http://h1:8500",
            "http://h2:1",
            "http://[::1]:8500",
            "http://h3:8500",
        ];
        assert_eq!(*plain, full);
        assert!(!plain.speak_tls());
        let secure = complete(["h1", "https://h2", "h3:1"], Some(true)).unwrap();
        let full = ["https://h1:8501", "https://h2:8501", "https://h3:1"];
        assert_eq!(*secure, full);
        assert!(secure.speak_tls());
    }

    #[test]
    fn servers_without_http_are_addresses_with_a_port() {
        let addresses = |servers: &[&str]| {
            let servers: Servers = servers.iter().copied().collect();
            let addresses = servers.addresses(RULES, 2181)?;
            Ok(addresses.iter().map(ToString::to_string).collect())
        };
        let named = ["h1", "h2:1", "10.0.0.7", "[::1]", "[2001:db8::7]:99"];
        let full: Result<Vec<String>> = addresses(&named);
        let expected = [
            "h1:2181",
            "h2:1",
            "10.0.0.7:2181",
            "[::1]:2181",
            "[2001:db8::7]:99",
        ];
        assert_eq!(full.unwrap(), expected);
        for (server, why) in [
            ("tcp://sesame", "scheme"),
            ("u:sesame@h:1", "dialled"),
            ("unix:/sesame", "dialled"),
            ("::1", "brackets"),
            ("h:0", "dialled"),
            ("h:", "dialled"),
            ("", "dialled"),
        ] {
            let refused: Result<Vec<String>> = addresses(&["h", server]);
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let report = error.report().to_string();
            assert!(
                report.contains("endpoints: ") && report.contains(why),
                "{report}"
            );
            assert!(!report.contains("sesame"), "{report}");
        }
    }

    #[test]
    fn what_cannot_be_dialled_or_contradicts_itself_is_refused_and_not_repeated() {
        for (servers, wants_tls, why) in [
            (["h", "sesame@h:1"], None, "dialled"),
            (["h", "sesame:0"], None, "dialled"),
            (["h", "unix:/sesame"], None, "dialled"),
            (["h", "ftp://sesame:1"], None, "write http://"),
            (["http://sesame:1", "https://i:1"], None, "all or none"),
            (["h", "http://u:sesame@h:1"], Some(true), "asks for TLS"),
            (["h", "https://u:sesame@h:1"], Some(false), "tls is off"),
        ] {
            let error = complete(servers, wants_tls).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let report = error.report().to_string();
            assert!(
                report.contains("endpoints: ") && report.contains(why),
                "{report}"
            );
            assert!(!report.contains("sesame"), "{report}");
        }
    }

    #[test]
    fn a_password_that_was_put_into_a_server_is_not_shown() {
        let servers = Servers::from_iter(["http://user:sesame@h:1", "i:2"]);
        assert_eq!(format!("{servers:?}"), r#"["***@h:1", "i:2"]"#);
    }
}
