//! What a configuration must satisfy before it is used.

use sd_core::Result;

use crate::config::EtcdConfig;
use crate::config::rules::{
    DEFAULT_PORT, KEEP_ALIVE_INTERVALS, MAX_PREFIX_BYTES, READ_TIMEOUTS, RULES, TIMEOUTS,
};

impl EtcdConfig {
    /// Checks everything that can be known without the server and the file system, and writes it in one way.
    pub(crate) fn checked(mut self) -> Result<Self> {
        if self.endpoints.is_empty() {
            return Err(RULES.broken(
                "endpoints",
                "name at least one, for instance http://host:2379",
            ));
        }
        let wants_tls = self.tls().wanted();
        self.endpoints
            .complete(RULES, wants_tls, |_tls| DEFAULT_PORT)?;
        for (key, prefix) in [
            ("prefix", &mut self.prefix),
            ("election_prefix", &mut self.election_prefix),
        ] {
            check_prefix(key, prefix)?;
        }
        RULES.apart(&self.prefix, &self.election_prefix)?;
        self.login().check(RULES)?;
        self.tls().check(RULES)?;
        for (key, value, range) in [
            ("connect_timeout", self.connect_timeout, TIMEOUTS),
            ("request_timeout", self.request_timeout, TIMEOUTS),
            ("read_timeout", self.read_timeout, READ_TIMEOUTS),
            ("keep_alive_timeout", self.keep_alive_timeout, TIMEOUTS),
            (
                "keep_alive_interval",
                self.keep_alive_interval,
                KEEP_ALIVE_INTERVALS,
            ),
        ] {
            RULES.range(key, value, &range)?;
        }
        Ok(self)
    }
}

/// Drops slashes at the end of a prefix.
fn check_prefix(key: &str, prefix: &mut String) -> Result<()> {
    prefix.truncate(prefix.trim_end_matches('/').len());
    if prefix.is_empty() || prefix.len() > MAX_PREFIX_BYTES {
        return Err(RULES.broken(
            key,
            format!("must have 1 to {MAX_PREFIX_BYTES} bytes, not counting slashes at its end"),
        ));
    }
    if prefix.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(RULES.broken(key, "must not contain white space or control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sd_core::ErrorKind;

    use super::*;

    fn refused(config: EtcdConfig) -> String {
        let error = config.checked().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.report().to_string()
    }

    #[test]
    fn endpoints_are_completed_and_slashes_dropped() {
        let config = EtcdConfig::new(["h1"]).with_prefix("/a/b//");
        let config = config.checked().unwrap();
        assert_eq!(*config.endpoints, ["http://h1:2379"]);
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
            (EtcdConfig::new(["http://h:1"]).with_ca("/ca"), "endpoints"),
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
                one().with_request_timeout(Duration::from_secs(3600)),
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
