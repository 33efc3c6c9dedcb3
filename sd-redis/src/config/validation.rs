//! What a configuration must satisfy before it is used.

use sd_core::Result;

use crate::config::RedisConfig;
use crate::config::format::Format;
use crate::config::rules::{
    DEFAULT_PORT, DEFAULT_USER, HEARTBEAT_TTLS, KEEP_ALIVE_INTERVALS, MAX_PREFIX_BYTES,
    POLL_INTERVALS, READ_ENDPOINTS, RULES, TIMEOUTS,
};
use crate::config::topology::Topology;

impl RedisConfig {
    /// Checks everything that can be known without the server and the file system, and writes it in one way.
    pub(crate) fn checked(mut self) -> Result<Self> {
        if self.endpoints.is_empty() {
            return Err(RULES.broken("endpoints", "name at least one, for instance host:6379"));
        }
        self.endpoints.addresses(RULES, self.default_port())?;
        check_prefix("prefix", &self.prefix)?;
        check_prefix("election_prefix", &self.election_prefix)?;
        if self.prefix == self.election_prefix {
            let rule = "must not be the prefix of services";
            return Err(RULES.broken("election_prefix", rule));
        }
        self.check_topology()?;
        self.check_read_endpoints()?;
        if self.user.is_none() && (self.password.is_some() || self.password_file.is_some()) {
            self.user = Some(DEFAULT_USER.to_owned());
        }
        self.login().check(RULES)?;
        self.check_sentinel_login()?;
        if self.has_sentinel_password() {
            self.sentinel_user.get_or_insert(DEFAULT_USER.to_owned());
        }
        self.tls().check(RULES)?;
        if self.tls == Some(false)
            && (self.ca.is_some() || self.cert.is_some() || self.server_name.is_some())
        {
            let rule = "is off, but ca, cert, key or server_name is set";
            return Err(RULES.broken("tls", rule));
        }
        RULES.range("heartbeat_ttl", self.heartbeat_ttl, &HEARTBEAT_TTLS)?;
        if self.heartbeat_ttl.subsec_nanos() != 0 {
            return Err(RULES.broken("heartbeat_ttl", "must be whole seconds"));
        }
        RULES.range("connect_timeout", self.connect_timeout, &TIMEOUTS)?;
        RULES.range("request_timeout", self.request_timeout, &TIMEOUTS)?;
        RULES.range("poll_interval", self.poll_interval, &POLL_INTERVALS)?;
        RULES.range(
            "keep_alive_interval",
            self.keep_alive_interval,
            &KEEP_ALIVE_INTERVALS,
        )?;
        Ok(self)
    }

    fn check_topology(&self) -> Result<()> {
        let broken = |key, rule| Err(RULES.broken(key, rule));
        if self.topology == Topology::Sentinel {
            let is_odd = |c: char| c.is_whitespace() || c.is_control();
            if self.primary.is_empty() || self.primary.contains(is_odd) {
                return broken("primary", "must be the name that Sentinels know it by");
            }
        } else if self.sentinel_user.is_some() || self.has_sentinel_password() {
            let key = match self.sentinel_user {
                Some(_) => "sentinel_user",
                None => "sentinel_password",
            };
            return broken(
                key,
                "needs Sentinels: set topology to sentinel, or write redis+sentinel://",
            );
        }
        if self.topology == Topology::Cluster && self.database != 0 {
            return broken(
                "database",
                "must be 0 in a Redis Cluster, which has no other",
            );
        }
        Ok(())
    }

    /// A replica may be behind. Only sets of heartbeats are not compared with what is told of them.
    fn check_read_endpoints(&self) -> Result<()> {
        if self.read_endpoints.is_empty() {
            return Ok(());
        }
        if self.format != Format::Heartbeat || self.topology != Topology::Standalone {
            let rule =
                "is for format=heartbeat at servers without Sentinels that are in no Cluster";
            return Err(RULES.broken(READ_ENDPOINTS, rule));
        }
        let addresses = self
            .read_endpoints
            .addresses_for(READ_ENDPOINTS, RULES, DEFAULT_PORT);
        addresses.map(drop)
    }

    fn has_sentinel_password(&self) -> bool {
        self.sentinel_password.is_some() || self.sentinel_password_file.is_some()
    }

    fn check_sentinel_login(&self) -> Result<()> {
        let rule = if self.sentinel_password.is_some() && self.sentinel_password_file.is_some() {
            "set either sentinel_password or sentinel_password_file, not both"
        } else if self.sentinel_user.is_some() && !self.has_sentinel_password() {
            "a user needs a password: set sentinel_password or sentinel_password_file"
        } else {
            return Ok(());
        };
        Err(RULES.broken("sentinel_password", rule))
    }
}

/// A prefix is the beginning of a key. Braces would choose its slot in a Cluster, and the others would break a line or an access rule.
fn check_prefix(key: &str, prefix: &str) -> Result<()> {
    if prefix.is_empty() || prefix.len() > MAX_PREFIX_BYTES {
        let rule = format!("must have 1 to {MAX_PREFIX_BYTES} bytes");
        return Err(RULES.broken(key, rule));
    }
    let is_odd = |c: char| {
        c.is_whitespace() || c.is_control() || matches!(c, '{' | '}' | '*' | '?' | '[' | ']' | '\\')
    };
    if prefix.contains(is_odd) {
        let rule = "must have no white space and none of { } * ? [ ] \\";
        return Err(RULES.broken(key, rule));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sd_core::ErrorKind;

    use super::*;

    fn refused(config: RedisConfig) -> String {
        let error = config.checked().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.report().to_string()
    }

    #[test]
    fn a_wrong_setting_is_refused_by_its_key() {
        let one = || RedisConfig::new(["h:1"]);
        let sentinels = || one().with_topology(Topology::Sentinel);
        for (config, key) in [
            (RedisConfig::default(), "endpoints"),
            (RedisConfig::new(["h:0"]), "endpoints"),
            (RedisConfig::new(["redis://h"]), "endpoints"),
            (one().with_prefix(""), "prefix"),
            (one().with_prefix("a{b}"), "prefix"),
            (one().with_prefix("a b"), "prefix"),
            (one().with_prefix("a*"), "prefix"),
            (one().with_prefix("x".repeat(129)), "prefix"),
            (one().with_election_prefix("services"), "election_prefix"),
            (sentinels().with_primary(""), "primary"),
            (sentinels().with_primary("a b"), "primary"),
            (one().with_sentinel_login("u", "p"), "sentinel_user"),
            (
                one().with_topology(Topology::Cluster).with_database(1),
                "database",
            ),
            (
                one().with_heartbeat_ttl(Duration::from_millis(1500)),
                "heartbeat_ttl",
            ),
            (one().with_read_endpoints(["r"]), "read_endpoints"),
            (
                sentinels()
                    .with_format(Format::Heartbeat)
                    .with_read_endpoints(["r"]),
                "read_endpoints",
            ),
            (
                one()
                    .with_format(Format::Heartbeat)
                    .with_read_endpoints(["redis://r"]),
                "read_endpoints",
            ),
            (one().with_tls(false).with_ca("/ca"), "tls"),
            (
                one().with_connect_timeout(Duration::ZERO),
                "connect_timeout",
            ),
            (
                one().with_request_timeout(Duration::from_secs(3600)),
                "request_timeout",
            ),
            (one().with_poll_interval(Duration::ZERO), "poll_interval"),
            (
                one().with_keep_alive_interval(Duration::ZERO),
                "keep_alive_interval",
            ),
        ] {
            let report = refused(config);
            assert!(report.contains(&format!("{key}: ")), "{key}: {report}");
        }
    }

    #[test]
    fn a_password_alone_is_that_of_the_user_that_every_server_has() {
        let checked = |url: &str| RedisConfig::from_url(url).unwrap().checked().unwrap();
        let config = checked("redis://:sesame@h");
        assert_eq!(config.user.as_deref(), Some("default"));
        // As a Sentinel with requirepass has it.
        for password in ["sentinel_password=sesame", "sentinel_password_file=/f"] {
            let config = checked(&format!("redis+sentinel://h?{password}"));
            assert_eq!(config.sentinel_user.as_deref(), Some("default"));
            assert_eq!(config.user, None);
        }
    }

    #[test]
    fn a_login_at_sentinels_is_a_user_with_one_password_or_a_password() {
        for (settings, key) in [
            ("sentinel_user=u", "sentinel_password: a user needs"),
            (
                "sentinel_user=u&sentinel_password=p&sentinel_password_file=/f",
                "sentinel_password: set either",
            ),
        ] {
            let url = format!("redis+sentinel://h?{settings}");
            let report = refused(RedisConfig::from_url(&url).unwrap());
            assert!(report.contains(key), "{report}");
        }
        let report = refused(RedisConfig::from_url("redis://h?sentinel_password=p").unwrap());
        assert!(report.contains("sentinel_password: needs"), "{report}");
    }
}
