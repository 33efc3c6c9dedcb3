//! What the user may set: which names are asked, whom, and how often.

pub(crate) mod family;
pub(crate) mod records;
pub(crate) mod rules;
pub(crate) mod transport;
pub(crate) mod validation;

use std::path::PathBuf;
use std::time::Duration;

use sd_backend::{Servers, TlsSettings};
use sd_core::Result;
use serde::Deserialize;

use crate::config::family::Family;
use crate::config::records::Records;
use crate::config::rules::{
    DEFAULT_KEEP_ABSENT, DEFAULT_MAX_INTERVAL, DEFAULT_MIN_INTERVAL, DEFAULT_NAME, DEFAULT_TIMEOUT,
    RULES, URL_SCHEMES,
};
use crate::config::transport::Transport;

/// Which names are asked, whom, and how often. [`connect`](crate::connect) validates it.
///
/// Serde and [`from_url`](Self::from_url) take the same keys. Unknown keys are refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DnsConfig {
    pub(crate) endpoints: Servers,
    pub(crate) records: Records,
    pub(crate) domain: Option<String>,
    pub(crate) name: String,
    pub(crate) port: Option<u16>,
    pub(crate) family: Family,
    pub(crate) transport: Transport,
    pub(crate) keep_absent: u32,
    #[serde(with = "humantime_serde")]
    pub(crate) min_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) max_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) timeout: Duration,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) server_name: Option<String>,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            endpoints: Servers::default(),
            records: Records::default(),
            domain: None,
            name: DEFAULT_NAME.to_owned(),
            port: None,
            family: Family::default(),
            transport: Transport::default(),
            keep_absent: DEFAULT_KEEP_ABSENT,
            min_interval: DEFAULT_MIN_INTERVAL,
            max_interval: DEFAULT_MAX_INTERVAL,
            timeout: DEFAULT_TIMEOUT,
            ca: None,
            server_name: None,
        }
    }
}

impl DnsConfig {
    /// Reads A and AAAA records. All instances serve at `port`, since these records have none.
    pub fn addresses(port: u16) -> Self {
        Self {
            port: Some(port),
            ..Self::default()
        }
    }

    /// Reads SRV records, which name the port of each instance.
    pub fn srv() -> Self {
        Self {
            records: Records::Srv,
            ..Self::default()
        }
    }

    /// The settings that a URL holds:
    ///
    /// ```text
    /// dns://10.0.0.53,10.0.1.53:5353/prod.local?port=50051
    /// dns+srv:///prod.local?name=_grpc._tcp.{service}&keep_absent=3
    /// ```
    ///
    /// The part before the `?` sets `endpoints` and `domain`; the keys after the `?` are those of serde. `dns+srv://` is `dns://`
    /// with `records=srv`.
    ///
    /// # Errors
    /// `InvalidInput` names the part that is wrong or the key that is unknown.
    pub fn from_url(url: &str) -> Result<Self> {
        let url = RULES.url(url, &URL_SCHEMES)?;
        let mut config: Self = url.settings()?;
        let domain = Some(url.path().trim_start_matches('/')).filter(|path| !path.is_empty());
        if url.username().is_some() || url.password().is_some() {
            return Err(RULES.broken("url", "DNS has no login: write nothing before an @"));
        }
        if domain.is_some_and(|domain| domain.contains('/')) {
            return Err(RULES.broken("domain", "has a slash: write dns:///prod.local"));
        }
        RULES.given_once(&[
            ("endpoints", !config.endpoints.is_empty()),
            ("domain", domain.is_some() && config.domain.is_some()),
        ])?;
        if url.scheme() != URL_SCHEMES[0] {
            config.records = Records::Srv;
        }
        config.endpoints = url.hosts().iter().collect();
        config.domain = config.domain.or(domain.map(str::to_owned));
        Ok(config)
    }

    /// Asks these resolvers, each written `ip` or `ip:port`: the first as long as it answers, then the next. Default: those of
    /// `/etc/resolv.conf`, with its search domains, after `/etc/hosts`; both files are read again when they change. A resolver that is
    /// named here is asked for names as they are.
    #[must_use]
    pub fn with_resolvers(
        mut self,
        resolvers: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.endpoints = resolvers.into_iter().collect();
        self
    }

    sd_backend::setters! {
        /// Sets the domain in which services have their names. With a dot at its end, the system's search domains are not tried. Default:
        /// none, so that services are named in full.
        with_domain(domain: some into String);

        /// Sets the name that is asked for a service, before the domain. `{service}` in it stands for the service, and must be there once:
        /// `_grpc._tcp.{service}`. Default: [`DEFAULT_NAME`].
        with_name(name: into String);

        /// Sets which IP addresses are asked for. Default: [`Family::Any`].
        with_family(family: Family);

        /// Sets how resolvers are spoken to. Default: [`Transport::Auto`].
        with_transport(transport: Transport);

        /// Takes an address away after this many answers in a row without it, 1 to 1000. More than 1 is for servers whose answers are
        /// samples of what there is. Default: [`DEFAULT_KEEP_ABSENT`].
        with_keep_absent(keep_absent: u32);
    }

    /// Reads a name again no sooner than `min` and no later than `max` after its last answer, whatever its time-to-live. Both are
    /// 100 ms to 1 h. Defaults: [`DEFAULT_MIN_INTERVAL`](crate::DEFAULT_MIN_INTERVAL) and
    /// [`DEFAULT_MAX_INTERVAL`](crate::DEFAULT_MAX_INTERVAL).
    #[must_use]
    pub fn with_intervals(mut self, min: Duration, max: Duration) -> Self {
        self.min_interval = min;
        self.max_interval = max;
        self
    }

    sd_backend::setters! {
        /// Limits how long one resolver may take for one answer, 100 ms to 10 s. Then the next one is asked. Default:
        /// [`DEFAULT_TIMEOUT`](crate::DEFAULT_TIMEOUT).
        with_timeout(timeout: Duration);

        /// Trusts only resolvers whose certificate was issued by an authority in this PEM file. For [`Transport::Tls`]. Default: the
        /// authorities that the operating system trusts.
        with_ca(ca: some into PathBuf);

        /// Expects this name in the resolvers' certificates. For [`Transport::Tls`]. Default: the IP address of each.
        with_server_name(server_name: some into String);
    }

    /// What is said of TLS.
    pub(crate) fn tls(&self) -> TlsSettings<'_> {
        TlsSettings {
            ca: self.ca.as_deref(),
            server_name: self.server_name.as_deref(),
            ..TlsSettings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    #[test]
    fn a_url_says_the_same_as_the_setters() {
        let url = "dns://10.0.0.53:5353,[::1]/prod.local?port=50051&family=ipv4&transport=tcp&keep_absent=3&min_interval=1s\
                   &max_interval=2m&timeout=500ms&ca=/ca&server_name=s";
        let set = DnsConfig::addresses(50051)
            .with_resolvers(["10.0.0.53:5353", "[::1]"])
            .with_domain("prod.local")
            .with_family(Family::Ipv4)
            .with_transport(Transport::Tcp)
            .with_keep_absent(3)
            .with_intervals(Duration::from_secs(1), Duration::from_secs(120))
            .with_timeout(Duration::from_millis(500))
            .with_ca("/ca")
            .with_server_name("s");
        let read = DnsConfig::from_url(url).unwrap();
        assert_eq!(format!("{read:?}"), format!("{set:?}"));

        let url = "dns+srv:///prod.local?name=_grpc._tcp.{service}";
        let set = DnsConfig::srv()
            .with_domain("prod.local")
            .with_name("_grpc._tcp.{service}");
        let read = DnsConfig::from_url(url).unwrap();
        assert_eq!(format!("{read:?}"), format!("{set:?}"));
    }

    #[test]
    fn a_bad_url_is_refused_and_says_why() {
        for (url, why) in [
            ("etcd://h", "dns+srv://"),
            ("dns:///prod.local", "port"),
            ("dns:///prod.local?port=0", "port"),
            ("dns+srv:///prod.local?port=80", "port"),
            ("dns://resolver.example/d?port=1", "IP address"),
            ("dns://u:hunter2@127.0.0.1/d?port=1", "no login"),
            ("dns://127.0.0.1/d?port=1&endpoints=::1", "endpoints"),
            ("dns:///a?port=1&domain=b", "domain"),
            ("dns:///a/b?port=1", "domain"),
            ("dns:///a..b?port=1", "domain"),
            ("dns:///a?port=1&name=_grpc", "{service}"),
            ("dns:///a?port=1&name={service}.{service}", "{service}"),
            ("dns:///a?port=1&name=a..{service}", "name"),
            ("dns:///a?port=1&keep_absent=0", "keep_absent"),
            ("dns:///a?port=1&min_interval=1ms", "min_interval"),
            ("dns:///a?port=1&min_interval=10m", "max_interval"),
            ("dns:///a?port=1&timeout=1h", "timeout"),
            ("dns:///a?port=1&transport=quic", "transport"),
            ("dns:///a?port=1&colour=red", "number 2 of the settings"),
            ("dns:///a?port=1&ca=/ca", "transport"),
        ] {
            let error = DnsConfig::from_url(url)
                .and_then(DnsConfig::checked)
                .map(drop)
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
            let report = error.report().to_string();
            assert!(report.contains(why), "{url}: {report}");
            assert!(!report.contains("hunter2"), "{report}");
        }
    }
}
