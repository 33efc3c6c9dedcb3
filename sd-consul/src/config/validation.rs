//! What a configuration must satisfy before it is used.

use sd_backend::Servers;
use sd_core::{ElectionName, Endpoint, Result};

use crate::config::ConsulConfig;
use crate::config::check_kind::CheckKind;
use crate::config::rules::{
    AGES, DEFAULT_ENDPOINT, DEFAULT_PORT, DEFAULT_TLS_PORT, DEREGISTER_AFTER, LOCK_DELAYS,
    MAX_FILTER_BYTES, MAX_TEXT_BYTES, RULES, TIMEOUTS, WAITS, check_token,
};

impl ConsulConfig {
    /// Checks everything that can be known without the server and the file system, and writes it in one way.
    pub(crate) fn checked(mut self) -> Result<Self> {
        if self.endpoints.is_empty() {
            self.endpoints = Servers::from_iter([DEFAULT_ENDPOINT]);
        }
        let wants_tls = self.tls().wanted();
        self.endpoints.complete(RULES, wants_tls, |tls| {
            if tls { DEFAULT_TLS_PORT } else { DEFAULT_PORT }
        })?;
        self.check_login()?;
        self.check_reading()?;
        self.check_writing()?;
        let prefix = self.election_prefix.trim_matches('/').to_owned();
        ElectionName::new(&prefix)
            .map_err(|error| RULES.broken("election_prefix", error.report()))?;
        self.election_prefix = prefix;
        for (key, limit) in [
            ("connect_timeout", self.connect_timeout),
            ("request_timeout", self.request_timeout),
        ] {
            RULES.range(key, limit, &TIMEOUTS)?;
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
            return Err(RULES.broken("token", "give one of token, token_file and token_env"));
        }
        if let Some(token) = &self.token {
            check_token("token", token.expose())?;
        }
        self.tls().check(RULES)?;
        if let Some(name) = &self.server_name
            && Endpoint::tcp(name, DEFAULT_TLS_PORT).is_err()
        {
            return Err(RULES.broken("server_name", "is not a host name"));
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
                return Err(RULES.broken(
                    "tag",
                    "must not contain both \" and `: Consul's filter language cannot quote them in one text",
                ));
            }
        }
        if let Some(filter) = &self.filter {
            check_text("filter", filter, MAX_FILTER_BYTES)?;
        }
        check_text("zone_meta", &self.zone_meta, MAX_TEXT_BYTES)?;
        if self.near.is_some() != self.nearest.is_some() || self.nearest == Some(0) {
            return Err(RULES.broken(
                "near and nearest",
                "set both: the node to measure from (_agent for the agent's own), and how many instances to keep, 1 or more",
            ));
        }
        RULES.range("max_stale", self.max_stale, &AGES)?;
        RULES.range("wait", self.wait, &WAITS)
    }

    fn check_writing(&self) -> Result<()> {
        match (self.check, &self.check_path) {
            (CheckKind::Grpc | CheckKind::Http, Some(path)) => {
                check_text("check_path", path, MAX_TEXT_BYTES)?;
            }
            (CheckKind::Ttl | CheckKind::Tcp, Some(_)) => {
                return Err(RULES.broken("check_path", "is only for check=http and check=grpc"));
            }
            (_, None) => {}
        }
        if self.check_tls && self.check == CheckKind::Ttl {
            return Err(RULES.broken(
                "check_tls",
                "is only for checks that the agent makes, not for check=ttl",
            ));
        }
        RULES.range(
            "deregister_critical_after",
            self.deregister_critical_after,
            &DEREGISTER_AFTER,
        )?;
        RULES.range("lock_delay", self.lock_delay, &LOCK_DELAYS)
    }
}

fn check_text(key: &str, text: &str, most: usize) -> Result<()> {
    if text.is_empty() || text.len() > most {
        return Err(RULES.broken(key, format!("must have 1 to {most} bytes")));
    }
    if text.contains(char::is_control) {
        return Err(RULES.broken(key, "must not contain control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sd_core::ErrorKind;

    use super::*;

    fn refused(config: ConsulConfig) -> String {
        let error = config.checked().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.report().to_string()
    }

    #[test]
    fn endpoints_are_completed_and_slashes_dropped() {
        let config = ConsulConfig::new(["h1"]).with_election_prefix("/a/b/");
        let config = config.checked().unwrap();
        assert_eq!(*config.endpoints, ["http://h1:8500"]);
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
            (
                ConsulConfig::new(["http://h:1"]).with_ca("/ca"),
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
            (one().with_wait(Duration::from_secs(11 * 60)), "wait"),
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
                one().with_request_timeout(Duration::from_secs(3600)),
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
