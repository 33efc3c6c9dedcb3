//! What a configuration must satisfy before it is used.

use http::{HeaderName, HeaderValue};
use sd_core::{Result, ServiceName};

use crate::codec::names::check_module;
use crate::config::ClusterConfig;
use crate::config::rules::{DEFAULT_PORT, PING_INTERVALS, RULES, TIMEOUTS};
use crate::config::transport::Transport;

/// The headers that a connection has by itself.
const OURS: [&str; 5] = [
    "host",
    "connection",
    "upgrade",
    "content-length",
    "user-agent",
];

impl ClusterConfig {
    /// Checks everything that can be known without the service and the file system.
    pub(crate) fn checked(self) -> Result<Self> {
        if self.endpoints.is_empty() {
            return Err(RULES.broken("endpoints", "name at least one, for instance host:9001"));
        }
        self.endpoints.addresses(RULES, DEFAULT_PORT)?;
        if self.module_name.is_empty() {
            return Err(RULES.broken(
                "module_name",
                "name the module that this process is: a config service knows its clients by that",
            ));
        }
        check_name("module_name", &self.module_name)?;
        for (key, modules) in [
            ("required_modules", &self.required_modules),
            ("optional_modules", &self.optional_modules),
        ] {
            for module in modules {
                check_name(key, module)?;
            }
        }
        let both = |module| self.required_modules.contains(module);
        if self.optional_modules.iter().any(both) {
            return Err(RULES.broken(
                "optional_modules",
                "one is also among the required_modules: write it once",
            ));
        }
        if self.transport == Transport::Http
            && self.serves.iter().any(|one| one.http_method.is_empty())
        {
            return Err(RULES.broken(
                "serves",
                "with the transport http, each endpoint needs its httpMethod: modules in Go do not start otherwise",
            ));
        }
        self.headers()?;
        self.tls().check(RULES)?;
        if self.tls == Some(false) && self.tls().ca.or(self.tls().cert).is_some() {
            return Err(RULES.broken("tls", "is off, but ca, cert or key is set"));
        }
        for (key, value, range) in [
            ("connect_timeout", self.connect_timeout, TIMEOUTS),
            ("handshake_timeout", self.handshake_timeout, TIMEOUTS),
            ("ping_interval", self.ping_interval, PING_INTERVALS),
        ] {
            RULES.range(key, value, &range)?;
        }
        Ok(self)
    }

    /// The headers of the requests for a connection.
    ///
    /// # Errors
    /// `InvalidInput` if one is none. Nothing of it is repeated: it may be a secret.
    pub(crate) fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>> {
        let read = |text: &str| {
            let (name, value) = text
                .split_once(':')
                .ok_or("one has no colon: write name: value")?;
            let name: HeaderName = (name.trim().parse()).map_err(|_| "the name of one is none")?;
            let mut value = HeaderValue::from_str(value.trim())
                .map_err(|_| "the value of one has characters that no header may have")?;
            if OURS.contains(&name.as_str()) || name.as_str().starts_with("sec-websocket-") {
                return Err("one is a header that the connection has by itself");
            }
            value.set_sensitive(true);
            Ok((name, value))
        };
        let headers = self.header.iter().map(|header| read(header.expose()));
        let headers: std::result::Result<_, &str> = headers.collect();
        headers.map_err(|rule| RULES.broken("header", rule))
    }
}

fn check_name(key: &str, module: &str) -> Result<()> {
    let service = ServiceName::new(module).map_err(|error| RULES.broken(key, error.report()))?;
    check_module("cluster: configuration", &service)
        .map_err(|error| RULES.broken(key, error.report()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sd_core::ErrorKind;

    use super::*;
    use crate::EndpointDescriptor;

    #[test]
    fn a_setting_that_no_clock_can_count_is_refused_before_it_is_used() {
        let config = ClusterConfig::new(["h:1"]).with_module("m");
        let refused = crate::connect(config.with_ping_interval(Duration::MAX));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_wrong_setting_is_refused_by_its_key() {
        let one = || ClusterConfig::new(["h:1"]).with_module("m");
        one().checked().unwrap();
        for (config, key) in [
            (ClusterConfig::default(), "endpoints"),
            (
                ClusterConfig::new(["http://h"]).with_module("m"),
                "endpoints",
            ),
            (ClusterConfig::new(["h"]), "module_name"),
            (ClusterConfig::new(["h"]).with_module("a||b"), "module_name"),
            (
                ClusterConfig::new(["h"]).with_module("__ack_b"),
                "module_name",
            ),
            (one().with_required_module(""), "required_modules"),
            (one().with_optional_module("a||b"), "optional_modules"),
            (
                one().with_required_module("a").with_optional_module("a"),
                "optional_modules",
            ),
            (
                one()
                    .with_transport(Transport::Http)
                    .with_served(EndpointDescriptor::new("a")),
                "serves",
            ),
            (one().with_header("Host", "a"), "header"),
            (one().with_header("Sec-WebSocket-Key", "a"), "header"),
            (one().with_header("a b", "c"), "header"),
            (one().with_header("a", "hunter2\u{7}"), "header"),
            (one().with_tls(false).with_ca("/ca"), "tls"),
            (one().with_ping_interval(Duration::ZERO), "ping_interval"),
            (one().with_connect_timeout(Duration::MAX), "connect_timeout"),
            (
                one().with_handshake_timeout(Duration::ZERO),
                "handshake_timeout",
            ),
        ] {
            let error = config.checked().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let report = error.report().to_string();
            assert!(report.contains(&format!("{key}: ")), "{key}: {report}");
            assert!(!report.contains("hunter2"), "{report}");
        }
    }
}
