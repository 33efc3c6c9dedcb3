//! What a configuration must satisfy before it is used.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sd_core::{Endpoint, Result};

use crate::config::DnsConfig;
use crate::config::family::Family;
use crate::config::records::Records;
use crate::config::rules::{
    DEFAULT_PORT, DEFAULT_TLS_PORT, INTERVALS, KEEP_ABSENT, RULES, SERVICE, TIMEOUTS,
};
use crate::config::transport::Transport;
use crate::names::{self, Names, socket_address};

/// A configuration that was checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) names: Names,
    pub(crate) kind: Kind,
    pub(crate) family: Family,
    pub(crate) keep_absent: u32,
    pub(crate) min_interval: Duration,
    pub(crate) max_interval: Duration,
    pub(crate) timeout: Duration,
    /// Empty for those of the system.
    pub(crate) resolvers: Vec<SocketAddr>,
    pub(crate) transport: Transport,
    #[cfg_attr(
        not(feature = "tls"),
        expect(dead_code, reason = "it is only for TLS, and refused without it")
    )]
    pub(crate) server_name: Option<Arc<str>>,
}

/// Which records tell of a service, with what they lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Address { port: u16 },
    Srv,
}

impl DnsConfig {
    /// Checks everything that can be known without the resolvers and the file system.
    pub(crate) fn checked(self) -> Result<Settings> {
        let kind = match (self.records, self.port) {
            (Records::Address, Some(port)) if port > 0 => Kind::Address { port },
            (Records::Address, _) => {
                return Err(RULES.broken(
                    "port",
                    "A and AAAA records have no port: name the one of the service, for instance port=50051, or read SRV records",
                ));
            }
            (Records::Srv, None) => Kind::Srv,
            (Records::Srv, Some(_)) => {
                return Err(RULES.broken("port", "SRV records name the ports: leave it out"));
            }
        };
        if self.name.matches(SERVICE).count() != 1 {
            return Err(RULES.broken(
                "name",
                format!("must have {SERVICE} in it once, for the service"),
            ));
        }
        for (key, text) in [
            ("name", Some(self.name.replace(SERVICE, "service"))),
            ("domain", self.domain.clone()),
        ] {
            if let Some(text) = text {
                names::parse(&text).map_err(|why| RULES.broken(key, why))?;
            }
        }
        if self.name.ends_with('.') && self.domain.is_some() {
            return Err(RULES.broken("name", "ends with a dot, but a domain follows"));
        }
        if !KEEP_ABSENT.contains(&self.keep_absent) {
            let (least, most) = (KEEP_ABSENT.start(), KEEP_ABSENT.end());
            let rule = format!("{} is outside of {least} to {most}", self.keep_absent);
            return Err(RULES.broken("keep_absent", rule));
        }
        RULES.range("min_interval", self.min_interval, &INTERVALS)?;
        let above = self.min_interval..=*INTERVALS.end();
        RULES.range("max_interval", self.max_interval, &above)?;
        RULES.range("timeout", self.timeout, &TIMEOUTS)?;
        self.check_tls()?;
        Ok(Settings {
            kind,
            family: self.family,
            keep_absent: self.keep_absent,
            min_interval: self.min_interval,
            max_interval: self.max_interval,
            timeout: self.timeout,
            resolvers: self.resolvers()?,
            transport: self.transport,
            server_name: self.server_name.as_deref().map(Arc::from),
            names: Names::new(self.name, self.domain),
        })
    }

    fn check_tls(&self) -> Result<()> {
        let wants_tls = self.tls().wanted() == Some(true);
        if wants_tls && self.transport != Transport::Tls {
            return Err(RULES.broken("transport", "ca and server_name are for transport=tls"));
        }
        if cfg!(not(feature = "tls")) && self.transport == Transport::Tls {
            return Err(RULES.broken(
                "transport",
                "tls is not compiled in: build with the feature tls of sd-dns",
            ));
        }
        Ok(())
    }

    fn resolvers(&self) -> Result<Vec<SocketAddr>> {
        let default_port = default_port(self.transport);
        let endpoints = self.endpoints.addresses(RULES, default_port)?;
        let resolver = |endpoint: &Endpoint| {
            socket_address(endpoint).ok_or_else(|| {
                RULES.broken(
                    "endpoints",
                    "one is a name: a resolver is named by its IP address",
                )
            })
        };
        endpoints.iter().map(resolver).collect()
    }
}

/// The port of a resolver that is named without one.
pub(crate) fn default_port(transport: Transport) -> u16 {
    match transport {
        Transport::Auto | Transport::Tcp => DEFAULT_PORT,
        Transport::Tls => DEFAULT_TLS_PORT,
    }
}
