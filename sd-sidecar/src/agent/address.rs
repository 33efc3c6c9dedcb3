//! Where the agent listens.

use std::fmt;
use std::path::PathBuf;

use http::Uri;

use super::error::{AgentError, Result};

/// The address of an agent: a host and a port, or a Unix socket, and what begins each path there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentAddress {
    pub(crate) place: Place,
    /// Without a slash at its end.
    path: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Tcp {
        host: String,
        port: u16,
    },
    #[cfg(feature = "tls")]
    Tls {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

impl AgentAddress {
    /// Reads `http://host:port/path`, `https://host:port/path` or `unix:/path/of/socket`.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let wrong = |what: &str| {
            AgentError::Invalid(format!(
                "the address of the agent, {}, {what}: write http://host:port, https://host:port or unix:/path",
                super::error::printable(format_args!("{:?}", without_user(url)))
            ))
        };
        if let Some(path) = url.strip_prefix("unix:") {
            // `unix:///path` is the same.
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') {
                return Err(wrong("has no absolute path"));
            }
            return Ok(Self {
                place: Place::Unix(path.into()),
                path: String::new(),
            });
        }
        let uri: Uri = url.parse().map_err(|_| wrong("is no URL"))?;
        let (usual_port, place): (u16, fn(String, u16) -> Place) = match uri.scheme_str() {
            Some("http") => (80, |host, port| Place::Tcp { host, port }),
            #[cfg(feature = "tls")]
            Some("https") => (443, |host, port| Place::Tls { host, port }),
            #[cfg(not(feature = "tls"))]
            Some("https") => {
                return Err(wrong(
                    "asks for TLS, without which this program is built: it needs the feature tls of sd-sidecar",
                ));
            }
            _ => return Err(wrong("has no scheme that is known")),
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err(wrong("has a user, which agents do not know: set a token"));
        }
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| wrong("has no host"))?;
        let port = match uri.port_u16() {
            Some(port) => port,
            None if authority == host => usual_port,
            None => return Err(wrong("has a port that is none")),
        };
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        Ok(Self {
            place: place(host, port),
            path: uri
                .path_and_query()
                .map_or("", |path| path.as_str())
                .trim_end_matches('/')
                .to_owned(),
        })
    }

    /// `path` at this address.
    pub(crate) fn join(&self, path: &str) -> String {
        match format!("{}{path}", self.path) {
            empty if empty.is_empty() => "/".to_owned(),
            path => path,
        }
    }

    /// What the header `Host` says.
    pub(crate) fn host(&self) -> String {
        let host_and_port = |host: &str, port: u16| {
            if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            }
        };
        match &self.place {
            Place::Tcp { host, port } => host_and_port(host, *port),
            #[cfg(feature = "tls")]
            Place::Tls { host, port } => host_and_port(host, *port),
            Place::Unix(_) => "localhost".to_owned(),
        }
    }
}

/// What stands before `@` may be a password.
pub(super) fn without_user(url: &str) -> &str {
    url.rsplit_once('@').map_or(url, |(_, rest)| rest)
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp { .. } => write!(f, "http://{}{}", self.host(), self.path),
            #[cfg(feature = "tls")]
            Place::Tls { .. } => write!(f, "https://{}{}", self.host(), self.path),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_url_or_a_socket() {
        for (url, shown, host, path) in [
            (
                "http://127.0.0.1:15010",
                "http://127.0.0.1:15010",
                "127.0.0.1:15010",
                "/watch",
            ),
            (
                "http://agent/base/",
                "http://agent:80/base",
                "agent:80",
                "/base/watch",
            ),
            ("http://[::1]:1/", "http://[::1]:1", "[::1]:1", "/watch"),
            (
                "unix:/run/agent.sock",
                "unix:/run/agent.sock",
                "localhost",
                "/watch",
            ),
            (
                "unix:///run/agent.sock",
                "unix:/run/agent.sock",
                "localhost",
                "/watch",
            ),
        ] {
            let address = AgentAddress::parse(url).unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(
                (address.host().as_str(), address.join("/watch").as_str()),
                (host, path)
            );
        }
        let whole = AgentAddress::parse("http://a:1/watch?x=1").unwrap();
        assert_eq!(whole.join(""), "/watch?x=1");
        assert_eq!(AgentAddress::parse("http://a:1").unwrap().join(""), "/");
    }

    #[cfg(feature = "tls")]
    #[test]
    fn an_address_over_tls_has_its_own_port_and_scheme() {
        for (url, shown) in [
            ("https://agent/base", "https://agent:443/base"),
            ("https://[::1]:15443", "https://[::1]:15443"),
        ] {
            let address = AgentAddress::parse(url).unwrap();
            assert_eq!(address.to_string(), shown);
            assert!(matches!(address.place, Place::Tls { .. }));
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn an_address_over_tls_names_the_feature_that_it_needs() {
        let error = AgentAddress::parse("https://agent").unwrap_err();
        assert!(error.to_string().contains("feature tls"), "{error}");
    }

    #[test]
    fn what_is_no_address_is_said_to_be_none_without_a_password() {
        for url in [
            "",
            "127.0.0.1:15010",
            "ftp://a",
            "unix:run",
            "http://",
            "http://127.0.0.1:99999",
            "http://[::1]:99999/x",
            "http://u:hunter2@a:1",
        ] {
            let error = AgentAddress::parse(url).unwrap_err().to_string();
            assert!(
                error.contains("write http://host:port, https://host:port or unix:/path"),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
