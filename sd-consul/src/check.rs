//! What a configuration must satisfy before it is used.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use sd_core::{ElectionName, Endpoint, Error, Result};

use crate::config::{CheckKind, ConsulConfig, DEFAULT_ENDPOINT, DEFAULT_PORT, DEFAULT_TLS_PORT};

const OP: &str = "consul: configuration";

const MAX_TEXT_BYTES: usize = 512;
const MAX_FILTER_BYTES: usize = 4096;
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_mins(1);
/// Consul waits 10 min at most, whatever it is asked.
const WAITS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(10);
const AGES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(24);
/// Consul raises what is shorter.
const DEREGISTER_AFTER: RangeInclusive<Duration> =
    Duration::from_mins(1)..=Duration::from_hours(7 * 24);
const LOCK_DELAYS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_mins(1);

impl ConsulConfig {
    /// Checks everything that can be known without the server and the file system, and writes it in one way.
    pub(crate) fn checked(mut self) -> Result<Self> {
        if self.endpoints.is_empty() {
            self.endpoints.push(DEFAULT_ENDPOINT.to_owned());
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
        self.check_login()?;
        self.check_reading()?;
        self.check_writing()?;
        let prefix = self.election_prefix.trim_matches('/').to_owned();
        ElectionName::new(&prefix).map_err(|error| invalid("election_prefix", error.report()))?;
        self.election_prefix = prefix;
        for (key, limit) in [
            ("connect_timeout", self.connect_timeout),
            ("request_timeout", self.request_timeout),
        ] {
            check_range(key, limit, &TIMEOUTS)?;
        }
        Ok(self)
    }

    fn check_login(&self) -> Result<()> {
        let ways = [
            self.token.is_some(),
            self.token_file.is_some(),
            self.token_env.is_some(),
        ];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            return Err(invalid(
                "token",
                "give one of token, token_file and token_env",
            ));
        }
        if let Some(token) = &self.token {
            check_token("token", token.expose())?;
        }
        if self.cert.is_some() != self.key.is_some() {
            return Err(invalid(
                "cert and key",
                "a certificate needs its key and a key its certificate",
            ));
        }
        if let Some(name) = &self.server_name
            && Endpoint::tcp(name, DEFAULT_TLS_PORT).is_err()
        {
            return Err(invalid("server_name", "is no host name"));
        }
        Ok(())
    }

    fn check_reading(&self) -> Result<()> {
        for (key, text) in [
            ("dc", &self.dc),
            ("namespace", &self.namespace),
            ("partition", &self.partition),
            ("near", &self.near),
            ("zone_tag", &self.zone_tag),
        ] {
            if let Some(text) = text {
                check_text(key, text, MAX_TEXT_BYTES)?;
            }
        }
        for tag in &self.tag {
            check_text("tag", tag, MAX_TEXT_BYTES)?;
            if tag.contains('"') && tag.contains('`') {
                return Err(invalid(
                    "tag",
                    "Consul's filters have no way to write both \" and ` in one text",
                ));
            }
        }
        if let Some(filter) = &self.filter {
            check_text("filter", filter, MAX_FILTER_BYTES)?;
        }
        check_text("zone_meta", &self.zone_meta, MAX_TEXT_BYTES)?;
        if self.near.is_some() != self.nearest.is_some() || self.nearest == Some(0) {
            return Err(invalid(
                "near and nearest",
                "say from which node (_agent for the agent's own) and how many instances, 1 or more",
            ));
        }
        check_range("max_stale", self.max_stale, &AGES)?;
        check_range("wait", self.wait, &WAITS)
    }

    fn check_writing(&self) -> Result<()> {
        match (self.check, &self.check_path) {
            (CheckKind::Grpc | CheckKind::Http, Some(path)) => {
                check_text("check_path", path, MAX_TEXT_BYTES)?;
            }
            (CheckKind::Ttl | CheckKind::Tcp, Some(_)) => {
                return Err(invalid("check_path", "is for check=http and check=grpc"));
            }
            (_, None) => {}
        }
        if self.check_tls && self.check == CheckKind::Ttl {
            return Err(invalid(
                "check_tls",
                "is for checks that the agent makes, not for check=ttl",
            ));
        }
        check_range(
            "deregister_critical_after",
            self.deregister_critical_after,
            &DEREGISTER_AFTER,
        )?;
        check_range("lock_delay", self.lock_delay, &LOCK_DELAYS)
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

/// A token goes into a header. It is not repeated when it is refused.
pub(crate) fn check_token(key: &str, token: &str) -> Result<()> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(invalid(
            key,
            "must be printable ASCII characters without white space",
        ));
    }
    Ok(())
}

fn check_text(key: &str, text: &str, most: usize) -> Result<()> {
    if text.is_empty() || text.len() > most {
        return Err(invalid(key, format!("must have 1 to {most} bytes")));
    }
    if text.contains(char::is_control) {
        return Err(invalid(key, "no control characters, please"));
    }
    Ok(())
}

fn check_range(key: &str, value: Duration, range: &RangeInclusive<Duration>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(invalid(
        key,
        format!(
            "{value:?} is outside of {:?} to {:?}",
            range.start(),
            range.end()
        ),
    ))
}

/// `scheme://host:port` of an endpoint that may lack scheme and port.
fn full_url(endpoint: &str, wants_tls: Option<bool>) -> Result<String> {
    let (secure, address) = match endpoint.split_once("://") {
        Some(("http", _)) if wants_tls == Some(true) => {
            return Err(invalid(
                "endpoints",
                "one of them is http://, but the configuration asks for TLS",
            ));
        }
        Some(("https", _)) if wants_tls == Some(false) => {
            return Err(invalid(
                "endpoints",
                "one of them is https://, but tls is off",
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
    } else if secure {
        Endpoint::tcp(address, DEFAULT_TLS_PORT)
    } else {
        Endpoint::tcp(address, DEFAULT_PORT)
    };
    // The text itself is not repeated: a token may have strayed into it.
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

    fn refused(config: ConsulConfig) -> String {
        let error = config.checked().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.report().to_string()
    }

    #[test]
    fn endpoints_are_completed_and_slashes_dropped() {
        let config = ConsulConfig::new(["h1", "http://h2:1", "[::1]", "http://h3/"])
            .with_election_prefix("/a/b/")
            .checked()
            .unwrap();
        let full = [
            "http://h1:8500",
            "http://h2:1",
            "http://[::1]:8500",
            "http://h3:8500",
        ];
        assert_eq!(*config.endpoints, full);
        assert_eq!(config.election_prefix, "a/b");
        let secure = ConsulConfig::new(["h1", "https://h2"]).with_ca("/ca");
        let secure = secure.checked().unwrap();
        assert_eq!(*secure.endpoints, ["https://h1:8501", "https://h2:8501"]);
        let local = ConsulConfig::default().checked().unwrap();
        assert_eq!(*local.endpoints, ["http://127.0.0.1:8500"]);
    }

    #[test]
    fn a_wrong_setting_is_refused_by_its_key() {
        let one = || ConsulConfig::new(["h:1"]);
        let second = Duration::from_secs(1);
        for (config, key) in [
            (ConsulConfig::new(["h:0"]), "endpoints"),
            (ConsulConfig::new(["ftp://h:1"]), "endpoints"),
            (ConsulConfig::new(["unix:/x"]), "endpoints"),
            (
                ConsulConfig::new(["http://h:1", "https://i:1"]),
                "endpoints",
            ),
            (
                ConsulConfig::new(["http://h:1"]).with_ca("/ca"),
                "endpoints",
            ),
            (
                ConsulConfig::new(["https://h:1"]).with_tls(false),
                "endpoints",
            ),
            (one().with_token(""), "token"),
            (one().with_token("to\nken"), "token"),
            (one().with_server_name("a b"), "server_name"),
            (one().with_datacenter(""), "dc"),
            (one().with_namespace("\0"), "namespace"),
            (one().with_tag(""), "tag"),
            (one().with_tag("\"`"), "tag"),
            (one().with_filter(""), "filter"),
            (one().with_nearest("_agent", 0), "nearest"),
            (one().with_zone_from_node_meta(""), "zone_meta"),
            (one().with_zone_from_tag(""), "zone_tag"),
            (one().with_max_stale(Duration::ZERO), "max_stale"),
            (one().with_wait(Duration::from_mins(11)), "wait"),
            (one().with_check_path("/x"), "check_path"),
            (
                one().with_check(CheckKind::Tcp).with_check_path("/x"),
                "check_path",
            ),
            (one().with_check_tls(true), "check_tls"),
            (
                one().with_deregister_critical_after(second),
                "deregister_critical_after",
            ),
            (one().with_lock_delay(Duration::from_secs(61)), "lock_delay"),
            (one().with_election_prefix("//"), "election_prefix"),
            (one().with_election_prefix("a b"), "election_prefix"),
            (
                one().with_connect_timeout(Duration::ZERO),
                "connect_timeout",
            ),
            (
                one().with_request_timeout(Duration::from_hours(1)),
                "request_timeout",
            ),
        ] {
            let report = refused(config);
            assert!(report.contains(key), "{report}");
        }
        let mut config = one().with_identity("/cert", "/key");
        config.key = None;
        assert!(refused(config).contains("cert and key"));
        let mut config = one().with_token("a");
        config.token_file = Some("/b".into());
        assert!(refused(config).contains("token_file"));
        let mut config = one();
        config.nearest = Some(3);
        assert!(refused(config).contains("near"));
    }
}
