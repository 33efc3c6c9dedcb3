//! What a configuration must satisfy before it is used.

use sd_core::Result;

use crate::codec::names::check_path;
use crate::config::ZkConfig;
use crate::config::access::Access;
use crate::config::auth_scheme::AuthScheme;
use crate::config::rules::{
    DEFAULT_EXHIBITOR_PORT, DEFAULT_PORT, EXHIBITOR_INTERVALS, MAX_PREFIX_BYTES, MOST_EXHIBITORS,
    REQUEST_TIMEOUTS, RULES, SESSION_TIMEOUTS,
};

impl ZkConfig {
    /// Checks everything that can be known without the server and the file system, and writes it in one way.
    pub(crate) fn checked(mut self) -> Result<Self> {
        if self.endpoints.is_empty() && self.exhibitors.is_empty() {
            return Err(RULES.broken("endpoints", "name at least one, for instance host:2181"));
        }
        self.endpoints.addresses(RULES, DEFAULT_PORT)?;
        self.check_exhibitors()?;
        for (key, path) in [
            ("chroot", &mut self.chroot),
            ("prefix", &mut self.prefix),
            ("election_prefix", &mut self.election_prefix),
        ] {
            check_setting(key, path)?;
        }
        for (key, path) in [
            ("prefix", &self.prefix),
            ("election_prefix", &self.election_prefix),
        ] {
            if path.is_empty() {
                return Err(RULES.broken(key, "must name a node, for instance /services"));
            }
        }
        RULES.apart(&self.prefix, &self.election_prefix)?;
        self.check_login()?;
        self.tls().check(RULES)?;
        if self.speaks_tls() && self.ca.is_none() {
            return Err(RULES.broken(
                "ca",
                "TLS needs the PEM file of the authority that signed the servers' certificates",
            ));
        }
        let has_files = self.ca.is_some() || self.cert.is_some();
        if self.tls == Some(false) && has_files {
            return Err(RULES.broken("tls", "is off, but ca, cert or key is set"));
        }
        RULES.range("session_timeout", self.session_timeout, &SESSION_TIMEOUTS)?;
        RULES.range("request_timeout", self.request_timeout, &REQUEST_TIMEOUTS)?;
        Ok(self)
    }

    fn check_exhibitors(&self) -> Result<()> {
        let broken = |key, rule: &str| Err(RULES.broken(key, rule));
        let exhibitors = &self.exhibitors;
        exhibitors.addresses_for("exhibitors", RULES, DEFAULT_EXHIBITOR_PORT)?;
        RULES.range(
            "exhibitor_interval",
            self.exhibitor_interval,
            &EXHIBITOR_INTERVALS,
        )?;
        if exhibitors.is_empty() {
            return Ok(());
        }
        if cfg!(not(feature = "exhibitor")) {
            let rule = "are not compiled in: build with the feature exhibitor of sd-zk";
            return broken("exhibitors", rule);
        }
        if exhibitors.len() > MOST_EXHIBITORS {
            let rule = format!("must be at most {MOST_EXHIBITORS}");
            return broken("exhibitors", &rule);
        }
        if self.follow_members {
            let rule = "an Exhibitor tells the servers already: set this or exhibitors";
            return broken("follow_members", rule);
        }
        Ok(())
    }

    fn check_login(&self) -> Result<()> {
        self.login().check(RULES)?;
        let broken = |key, rule| Err(RULES.broken(key, rule));
        let by_sasl = self.auth_scheme == AuthScheme::Sasl;
        if by_sasl && cfg!(not(feature = "sasl")) {
            let rule = "sasl is not compiled in: build with the feature sasl of sd-zk";
            return broken("auth_scheme", rule);
        }
        match &self.user {
            None if by_sasl => broken(
                "auth_scheme",
                "sasl needs a login: set a user and a password",
            ),
            None if self.access != Access::Open && self.cert.is_none() => broken(
                "access",
                "needs a login: set a user and a password, or a certificate",
            ),
            Some(user) if user.contains(':') && !by_sasl => broken(
                "user",
                "must not contain a colon: digest authentication ends it there",
            ),
            _ => Ok(()),
        }
    }
}

/// Drops slashes at the end of a path. The root is empty then.
fn check_setting(key: &str, path: &mut String) -> Result<()> {
    path.truncate(path.trim_end_matches('/').len());
    if path.len() > MAX_PREFIX_BYTES {
        let rule = format!("must have at most {MAX_PREFIX_BYTES} bytes");
        return Err(RULES.broken(key, rule));
    }
    check_path(path).map_err(|rule| RULES.broken(key, rule))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sd_core::ErrorKind;

    use super::*;

    fn refused(config: ZkConfig) -> String {
        let error = config.checked().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.report().to_string()
    }

    #[test]
    fn slashes_at_the_end_of_paths_are_dropped() {
        let config = ZkConfig::new(["h1"])
            .with_prefix("/a/b//")
            .with_chroot("/c/");
        let config = config.checked().unwrap();
        assert_eq!(
            (config.prefix.as_str(), config.chroot.as_str()),
            ("/a/b", "/c")
        );
        let root = ZkConfig::new(["h1"]).with_chroot("/").checked().unwrap();
        assert_eq!(root.chroot, "");
        let beside = ZkConfig::new(["h1"]).with_election_prefix("/services-elections/");
        assert_eq!(
            beside.checked().unwrap().election_prefix,
            "/services-elections"
        );
    }

    #[cfg(feature = "exhibitor")]
    #[test]
    fn an_exhibitor_is_enough() {
        let told = ZkConfig::default().with_exhibitors(["e"]);
        assert!(told.checked().is_ok());
    }

    #[cfg(feature = "sasl")]
    #[test]
    fn a_user_has_no_colon_only_where_digest_ends_it_there() {
        let login = ZkConfig::new(["h:1"]).with_user("a:b", "p");
        assert!(login.with_auth_scheme(AuthScheme::Sasl).checked().is_ok());
    }

    #[test]
    fn a_wrong_setting_is_refused_by_its_key() {
        let one = || ZkConfig::new(["h:1"]);
        for (config, key) in [
            (ZkConfig::default(), "endpoints"),
            (ZkConfig::new(["h:0"]), "endpoints"),
            (ZkConfig::new(["http://h:1"]), "endpoints"),
            (one().with_prefix("//"), "prefix"),
            (one().with_prefix("services"), "prefix"),
            (one().with_prefix("/a//b"), "prefix"),
            (one().with_prefix("/a/../b"), "prefix"),
            (one().with_prefix("/a/."), "prefix"),
            (one().with_prefix("/a\u{7}"), "prefix"),
            (one().with_prefix("/zookeeper/a"), "prefix"),
            (one().with_chroot("a"), "chroot"),
            (one().with_chroot("/.."), "chroot"),
            (one().with_election_prefix(""), "election_prefix"),
            (one().with_prefix("/elections"), "election_prefix"),
            (
                one().with_election_prefix("/services/e/"),
                "election_prefix",
            ),
            (
                one().with_session_timeout(Duration::ZERO),
                "session_timeout",
            ),
            (
                one().with_request_timeout(Duration::from_secs(3600)),
                "request_timeout",
            ),
            (one().with_access(Access::Private), "access"),
            (one().with_user("a:b", "p"), "user"),
            (ZkConfig::default().with_exhibitors(["h:0"]), "exhibitors"),
            (one().with_exhibitors(["http://h"]), "exhibitors"),
            (one().with_exhibitors(["h"; 17]), "exhibitors"),
            (
                one().with_exhibitor_interval(Duration::ZERO),
                "exhibitor_interval",
            ),
            (
                one().with_exhibitors(["h"]).with_follow_members(true),
                if cfg!(feature = "exhibitor") {
                    "follow_members"
                } else {
                    "exhibitors"
                },
            ),
            (one().with_auth_scheme(AuthScheme::Sasl), "auth_scheme"),
            (one().with_tls(true), "ca"),
            (one().with_tls(false).with_ca("/ca"), "tls"),
        ] {
            let report = refused(config);
            assert!(report.contains(&format!("{key}: ")), "{key}: {report}");
        }
        let mut config = one().with_ca("/ca").with_identity("/cert", "/key");
        config.key = None;
        assert!(refused(config).contains("cert and key"));
    }
}
