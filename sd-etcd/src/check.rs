//! What a configuration must satisfy before it is used.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use sd_core::{Endpoint, Error, Result};

use crate::config::{DEFAULT_PORT, EtcdConfig};

const OP: &str = "etcd: configuration";

const MAX_PREFIX_BYTES: usize = 512;
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_mins(1);

impl EtcdConfig {
    /// Checks everything that can be known without the server and the file system, and writes it in one way.
    pub(crate) fn checked(mut self) -> Result<Self> {
        if self.endpoints.is_empty() {
            return Err(invalid("endpoints", "name at least one, http://host:2379"));
        }
        let wants_tls = self.wants_tls();
        for endpoint in self.endpoints.iter_mut() {
            *endpoint = full_url(endpoint, wants_tls)?;
        }
        let secure = |endpoint: &String| endpoint.starts_with("https://");
        if self.endpoints.iter().any(secure) && !self.endpoints.iter().all(secure) {
            return Err(invalid(
                "endpoints",
                "either all or none of them must be https",
            ));
        }
        for (key, prefix) in [
            ("prefix", &mut self.prefix),
            ("election_prefix", &mut self.election_prefix),
        ] {
            check_prefix(key, prefix)?;
        }
        if is_inside(&self.prefix, &self.election_prefix)
            || is_inside(&self.election_prefix, &self.prefix)
        {
            return Err(invalid(
                "election_prefix",
                format!(
                    "{} and the prefix of services, {}, must lie beside each other, not one inside the other",
                    self.election_prefix, self.prefix
                ),
            ));
        }
        self.check_login()?;
        if self.cert.is_some() != self.key.is_some() {
            return Err(invalid(
                "cert and key",
                "a certificate needs its key and a key its certificate",
            ));
        }
        for (name, limit) in [
            ("connect_timeout", self.connect_timeout),
            ("request_timeout", self.request_timeout),
            ("keep_alive_timeout", self.keep_alive_timeout),
        ] {
            if !TIMEOUTS.contains(&limit) {
                return Err(invalid(
                    name,
                    format!(
                        "{limit:?} is outside of {:?} to {:?}",
                        TIMEOUTS.start(),
                        TIMEOUTS.end()
                    ),
                ));
            }
        }
        if !(Duration::from_secs(1)..=Duration::from_hours(1)).contains(&self.keep_alive_interval) {
            return Err(invalid(
                "keep_alive_interval",
                format!("{:?} is outside of 1s to 1h", self.keep_alive_interval),
            ));
        }
        Ok(self)
    }

    fn check_login(&self) -> Result<()> {
        match (&self.user, &self.password, &self.password_file) {
            (None, None, None) | (Some(_), Some(_), None) | (Some(_), None, Some(_)) => Ok(()),
            (None, ..) => Err(invalid("user", "a password needs a user")),
            (Some(_), None, None) => Err(invalid(
                "password",
                "a user needs a password or a password_file",
            )),
            (Some(_), Some(_), Some(_)) => Err(invalid(
                "password",
                "give either a password or a password_file",
            )),
        }
    }

    /// Whether endpoints without a scheme are meant to speak TLS.
    fn wants_tls(&self) -> Option<bool> {
        let implied = self.ca.is_some()
            || self.cert.is_some()
            || self.key.is_some()
            || self.server_name.is_some();
        self.tls.or(implied.then_some(true))
    }

    /// Whether a [checked](Self::checked) configuration speaks TLS.
    pub(crate) fn speaks_tls(&self) -> bool {
        self.endpoints
            .iter()
            .any(|endpoint| endpoint.starts_with("https://"))
    }
}

pub(crate) fn invalid(key: &str, rule: impl fmt::Display) -> Error {
    Error::invalid_input(OP, format!("{key}: {rule}"))
}

/// Drops slashes at the end of a prefix.
fn check_prefix(key: &str, prefix: &mut String) -> Result<()> {
    prefix.truncate(prefix.trim_end_matches('/').len());
    if prefix.is_empty() || prefix.len() > MAX_PREFIX_BYTES {
        return Err(invalid(
            key,
            format!("must have 1 to {MAX_PREFIX_BYTES} bytes besides slashes at its end"),
        ));
    }
    if prefix.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(invalid(key, "no white space or control characters, please"));
    }
    Ok(())
}

/// Whether the folder `inner` is `outer` or lies in it.
fn is_inside(inner: &str, outer: &str) -> bool {
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `scheme://host:port` of an endpoint that may lack scheme and port.
fn full_url(endpoint: &str, wants_tls: Option<bool>) -> Result<String> {
    let (secure, address) = match endpoint.split_once("://") {
        Some(("http", _)) if wants_tls == Some(true) => {
            return Err(invalid(
                "endpoints",
                format!("{endpoint} speaks no TLS, but the configuration asks for it"),
            ));
        }
        Some(("https", _)) if wants_tls == Some(false) => {
            return Err(invalid(
                "endpoints",
                format!("{endpoint} speaks TLS, but tls is off"),
            ));
        }
        Some(("http", address)) => (false, address),
        Some(("https", address)) => (true, address),
        None => (wants_tls.unwrap_or(false), endpoint),
        Some(_) => {
            return Err(invalid(
                "endpoints",
                "write http://host:port or https://host:port",
            ));
        }
    };
    let address = address.strip_suffix('/').unwrap_or(address);
    let has_port = address
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.contains(']'));
    let parsed = if has_port {
        address.parse::<Endpoint>()
    } else {
        Endpoint::tcp(address, DEFAULT_PORT)
    };
    // The text itself is not repeated: a password may have strayed into it.
    let parsed = parsed.ok().filter(|parsed| parsed.port().is_some());
    let Some(parsed) = parsed else {
        return Err(invalid(
            "endpoints",
            "one of them is no host:port that can be dialled",
        ));
    };
    let scheme = if secure { "https" } else { "http" };
    Ok(format!("{scheme}://{parsed}"))
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    fn refused(config: EtcdConfig) -> String {
        let error = config.checked().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.report().to_string()
    }

    #[test]
    fn endpoints_are_completed_and_slashes_dropped() {
        let config = EtcdConfig::new(["h1", "http://h2:1", "[::1]", "http://h3/"])
            .with_prefix("/a/b//")
            .checked()
            .unwrap();
        assert_eq!(
            *config.endpoints,
            [
                "http://h1:2379",
                "http://h2:1",
                "http://[::1]:2379",
                "http://h3:2379"
            ]
        );
        assert_eq!(config.prefix, "/a/b");
        let beside = EtcdConfig::new(["h1"]).with_election_prefix("/services-elections/");
        assert_eq!(
            beside.checked().unwrap().election_prefix,
            "/services-elections"
        );
        let secure = EtcdConfig::new(["h1"]).with_ca("/ca").checked().unwrap();
        assert_eq!(*secure.endpoints, ["https://h1:2379"]);
    }

    #[test]
    fn a_wrong_setting_is_refused_by_its_key() {
        let one = || EtcdConfig::new(["h:1"]);
        for (config, key) in [
            (EtcdConfig::default(), "endpoints"),
            (EtcdConfig::new(["h:0"]), "endpoints"),
            (EtcdConfig::new(["ftp://h:1"]), "endpoints"),
            (EtcdConfig::new(["unix:/x"]), "endpoints"),
            (EtcdConfig::new(["http://h:1", "https://i:1"]), "endpoints"),
            (EtcdConfig::new(["http://h:1"]).with_ca("/ca"), "endpoints"),
            (
                EtcdConfig::new(["https://h:1"]).with_tls(false),
                "endpoints",
            ),
            (one().with_prefix("//"), "prefix"),
            (one().with_prefix("/a b"), "prefix"),
            (one().with_election_prefix(""), "election_prefix"),
            (one().with_prefix("/elections"), "election_prefix"),
            (one().with_prefix("/elections/a"), "election_prefix"),
            (
                one().with_election_prefix("/services/e/"),
                "election_prefix",
            ),
            (
                one().with_connect_timeout(Duration::ZERO),
                "connect_timeout",
            ),
            (
                one().with_request_timeout(Duration::from_hours(1)),
                "request_timeout",
            ),
            (
                one().with_keep_alive(Duration::ZERO, Duration::from_secs(1)),
                "keep_alive_interval",
            ),
        ] {
            let report = refused(config);
            assert!(report.contains(key), "{report}");
        }
        let mut config = one().with_identity("/cert", "/key");
        config.key = None;
        assert!(refused(config).contains("cert and key"));
        let mut config = one().with_user("u", "p");
        config.user = None;
        assert!(refused(config).contains("user"));
    }
}
