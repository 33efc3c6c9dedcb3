//! What keeps web pages away: a browser on this host can reach the agent, and a page must not make it do so.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Uri};

use crate::daemon::config::Listen;

/// Which hosts may be asked for, and which web pages may ask.
#[derive(Clone, Debug)]
pub struct BrowserRules {
    names: Vec<String>,
    origins: Vec<String>,
    addresses: Vec<IpAddr>,
}

/// A page of this origin may not ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherOrigin;

impl BrowserRules {
    /// The rules for requests to `listen`, which may also be asked for by `names`, and by the pages of `origins`.
    pub fn new(
        listen: &[Listen],
        names: impl IntoIterator<Item = String>,
        origins: &[String],
    ) -> Self {
        let addresses = listen.iter().filter_map(|listen| match listen {
            Listen::Tcp(address) | Listen::Tls(address) => Some(address.ip().to_canonical()),
            Listen::Unix(_) => None,
        });
        Self {
            names: names
                .into_iter()
                .map(|name| name.to_ascii_lowercase())
                .collect(),
            origins: origins.to_vec(),
            addresses: addresses.collect(),
        }
    }

    /// Whether the host that a request asks for is this one. A page whose name was made to resolve to this host asks for its own name.
    pub fn allows_host(&self, headers: &HeaderMap, uri: &Uri) -> bool {
        let mut hosts = headers.get_all(HOST).iter();
        let host = match (uri.authority(), hosts.next(), hosts.next()) {
            (_, _, Some(_)) => return false,
            (Some(authority), _, None) => authority.as_str(),
            (None, Some(host), None) => match host.to_str() {
                Ok(host) => host,
                Err(_) => return false,
            },
            // HTTP/1.0, which no browser speaks.
            (None, None, None) => return true,
        };
        self.is_ours(host)
    }

    fn is_ours(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let bare = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .unwrap_or(&name);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            let ip = ip.to_canonical();
            // Who listens everywhere does not know all addresses of its host. A page cannot pose as an address.
            return ip.is_loopback()
                || self
                    .addresses
                    .iter()
                    .any(|ours| *ours == ip || ours.is_unspecified())
                || self.names.iter().any(|name| name == bare);
        }
        let name = name.strip_suffix('.').unwrap_or(&name);
        name == "localhost"
            || name.ends_with(".localhost")
            || self.names.iter().any(|ours| ours == name)
    }

    /// The origin that the answer may be shown to, if the request comes from a web page.
    ///
    /// # Errors
    /// The page may not ask.
    pub fn allowed_origin<'a>(
        &self,
        headers: &'a HeaderMap,
    ) -> Result<Option<&'a HeaderValue>, OtherOrigin> {
        let Some(origin) = headers.get(ORIGIN) else {
            return Ok(None);
        };
        let text = origin.to_str().map_err(|_| OtherOrigin)?;
        let is_listed = self
            .origins
            .iter()
            .any(|one| one.eq_ignore_ascii_case(text));
        // A page that the agent itself has sent.
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let is_own = host.is_some_and(|host| {
            ["http://", "https://"]
                .iter()
                .any(|scheme| text.strip_prefix(scheme) == Some(host))
                && self.is_ours(host)
        });
        if is_listed || is_own {
            Ok(Some(origin))
        } else {
            Err(OtherOrigin)
        }
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && (name.ends_with(']') || !name.contains(':')) =>
        {
            name
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(http::HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn rules(listen: &str) -> BrowserRules {
        BrowserRules::new(
            &[listen.parse().unwrap()],
            ["Host-7.example".to_owned()],
            &["https://admin.example".to_owned()],
        )
    }

    fn allows(listen: &str, host: &str) -> bool {
        rules(listen).allows_host(&headers(&[(HOST, host)]), &Uri::from_static("/register"))
    }

    #[test]
    fn only_names_and_addresses_of_this_host_may_be_asked_for() {
        for host in [
            "127.0.0.1:15010",
            "localhost",
            "LOCALHOST:1",
            "a.localhost",
            "localhost.",
            "[::1]:15010",
            "127.0.0.9",
            "host-7.example:80",
            "HOST-7.EXAMPLE",
        ] {
            assert!(allows("127.0.0.1:15010", host), "{host}");
        }
        for host in [
            "evil.example:15010",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "10.0.0.7",
            "",
            "::1.evil",
            "127.0.0.1@evil.example",
        ] {
            assert!(!allows("127.0.0.1:15010", host), "{host}");
        }
        assert!(allows("0.0.0.0:1", "10.0.0.7:1") && allows("10.0.0.7:1", "10.0.0.7"));
        assert!(!allows("0.0.0.0:1", "evil.example"));
        let twice = headers(&[(HOST, "localhost"), (HOST, "evil.example")]);
        assert!(!rules("127.0.0.1:1").allows_host(&twice, &Uri::from_static("/")));
        // The target of a request wins over the header, and is checked.
        let absolute = Uri::from_static("http://evil.example/register");
        assert!(!rules("127.0.0.1:1").allows_host(&headers(&[(HOST, "localhost")]), &absolute));
    }

    #[test]
    fn a_page_is_let_in_if_it_is_listed_or_our_own() {
        let rules = rules("127.0.0.1:15010");
        let ask = |origin: &str, host: &str| {
            let headers = headers(&[(ORIGIN, origin), (HOST, host)]);
            rules.allowed_origin(&headers).map(Option::<&_>::cloned)
        };
        for origin in ["https://admin.example", "http://localhost:15010"] {
            assert_eq!(ask(origin, "localhost:15010").unwrap().unwrap(), origin);
        }
        for (origin, host) in [
            ("https://evil.example", "localhost:15010"),
            ("null", "localhost:15010"),
            ("http://localhost:8080", "localhost:15010"),
            ("http://evil.example", "evil.example"),
            ("https://admin.example.evil", "localhost"),
        ] {
            assert!(ask(origin, host).is_err(), "{origin}");
        }
        assert_eq!(rules.allowed_origin(&HeaderMap::new()), Ok(None));
    }
}
