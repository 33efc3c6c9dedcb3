//! What the user may set: where the config service is, which module this process is, what it needs and what it serves.

pub(crate) mod rules;
pub(crate) mod transport;
pub(crate) mod validation;

use std::path::PathBuf;
use std::time::Duration;

use sd_backend::{Secret, Servers};
use sd_core::Result;
use serde::Deserialize;

use crate::client::error::AckRule;
use crate::config::rules::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_HANDSHAKE_TIMEOUT, DEFAULT_PING_INTERVAL, DEFAULT_VERSION,
    RULES, SILENT_INTERVALS, URL_SCHEMES,
};
use crate::config::transport::Transport;
use crate::etp::connection::Times;
use crate::module::remote_config::RemoteConfig;
use crate::module::routes_receiver::RoutesReceiver;
use crate::module::secret_words::SecretWords;
use crate::protocol::declaration::MetricsAutodiscovery;
use crate::protocol::endpoint::EndpointDescriptor;

/// Where the config service is, which module this process is, what it needs and what it serves. [`connect`](crate::connect) validates it.
///
/// Serde and [`from_url`](Self::from_url) take the same keys, of which `serves` and `metrics_autodiscovery` have no place in a URL. Unknown
/// keys are refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a setting of its own, which a user writes as true or false"
)]
pub struct ClusterConfig {
    pub(crate) endpoints: Servers,
    pub(crate) module_name: String,
    pub(crate) version: String,
    pub(crate) transport: Transport,
    pub(crate) serves: Vec<EndpointDescriptor>,
    pub(crate) metrics_autodiscovery: Option<MetricsAutodiscovery>,
    pub(crate) required_modules: Vec<String>,
    pub(crate) optional_modules: Vec<String>,
    pub(crate) await_required: bool,
    pub(crate) routes: bool,
    pub(crate) allow_ipv6: bool,
    pub(crate) lenient_acks: bool,
    pub(crate) header: Vec<Secret>,
    pub(crate) tls: Option<bool>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) server_name: Option<String>,
    #[serde(with = "humantime_serde")]
    pub(crate) connect_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) handshake_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) ping_interval: Duration,
    #[serde(skip)]
    pub(crate) secret_words: SecretWords,
    #[serde(skip)]
    pub(crate) remote_config: Option<RemoteConfig>,
    #[serde(skip)]
    pub(crate) routes_receiver: Option<RoutesReceiver>,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            endpoints: Servers::default(),
            module_name: String::new(),
            version: DEFAULT_VERSION.to_owned(),
            transport: Transport::default(),
            serves: Vec::new(),
            metrics_autodiscovery: None,
            required_modules: Vec::new(),
            optional_modules: Vec::new(),
            await_required: false,
            routes: false,
            allow_ipv6: false,
            lenient_acks: false,
            header: Vec::new(),
            tls: None,
            ca: None,
            cert: None,
            key: None,
            server_name: None,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            handshake_timeout: DEFAULT_HANDSHAKE_TIMEOUT,
            ping_interval: DEFAULT_PING_INTERVAL,
            secret_words: SecretWords::default(),
            remote_config: None,
            routes_receiver: None,
        }
    }
}

impl ClusterConfig {
    /// A config service at these endpoints, `host:port` each. They are tried in turns, from a random one on.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().collect(),
            ..Self::default()
        }
    }

    /// A config service from a URL:
    ///
    /// ```text
    /// isp://h1:9001,h2:9001/?module_name=orders&version=1.2.3&required_modules=auth
    /// ```
    ///
    /// The part before the `?` sets `endpoints`; the keys after the `?` are those of serde, of which those that are lists may be given
    /// several times. `isps://` is `isp://` with `tls=true`.
    ///
    /// # Errors
    /// `InvalidInput` names the part that is wrong or the key that is unknown.
    pub fn from_url(url: &str) -> Result<Self> {
        let url = RULES.url(url, &URL_SCHEMES)?;
        let mut config: Self = url.settings()?;
        if url.username().is_some() || url.password().is_some() {
            return Err(RULES.broken(
                "url",
                "a config service has no login: write nothing before an @, and what a proxy asks for as header=",
            ));
        }
        if url.path().len() > 1 {
            return Err(RULES.broken("url", "has a path: write isp://host:9001/?module_name=..."));
        }
        RULES.given_once(&[("endpoints", !config.endpoints.is_empty())])?;
        RULES.tls_scheme(url.scheme() == URL_SCHEMES[1], &mut config.tls)?;
        config.endpoints = url.hosts().iter().collect();
        Ok(config)
    }

    /// Sets the module that this process is. The service knows each connection by such a name, and keeps the configuration of the module
    /// under it. A process that only reads needs one, too. No default.
    #[must_use]
    pub fn with_module(mut self, name: impl Into<String>) -> Self {
        self.module_name = name.into();
        self
    }

    sd_backend::setters! {
        /// Sets the version of the module. Default: [`DEFAULT_VERSION`]. An instance may have another one.
        with_version(version: into String);

        /// Sets how the module is called. Default: [`Transport::Grpc`].
        with_transport(transport: Transport);
    }

    /// Adds something that can be called at the module, which gateways read from the routes. Default: nothing.
    #[must_use]
    pub fn with_served(mut self, endpoint: EndpointDescriptor) -> Self {
        self.serves.push(endpoint);
        self
    }

    /// Adds a module that this one cannot do without. Its addresses are followed from the beginning: subscribe to it to use them. Default:
    /// none.
    #[must_use]
    pub fn with_required_module(mut self, name: impl Into<String>) -> Self {
        self.required_modules.push(name.into());
        self
    }

    /// Adds a module that this one calls and can do without. Default: none.
    #[must_use]
    pub fn with_optional_module(mut self, name: impl Into<String>) -> Self {
        self.optional_modules.push(name.into());
        self
    }

    sd_backend::setters! {
        /// Sets what the service tells the monitoring of this module. Default: nothing.
        with_metrics_autodiscovery(metrics_autodiscovery: some MetricsAutodiscovery);

        /// Has registrations of this module wait until each required module has an instance. Without it, as with modules in Go, it is
        /// enough that the service has told of each, even that it has none. Default: false.
        with_await_required(await_required: bool);

        /// Reads from the routes, which tell version, transport and endpoints of each instance and name all modules. The service sends all
        /// of them with each change of any module. Default: false, so that a service is followed by the addresses that are told of it.
        with_routes(routes: bool);

        /// Registers IPv6 addresses, too, in brackets: without them, isp-config-service up to 3.9.0 ends the routes of all modules. Another
        /// service may not read them so. Default: false, so that they are refused.
        with_allow_ipv6(allow_ipv6: bool);

        /// Takes any answer of the service for success, as modules in Go do, and logs what it says. For services that do not answer `ok`:
        /// with it, a module that the service has refused counts as registered. Default: false, so that anything but `ok` is a failure.
        with_lenient_acks(lenient_acks: bool);
    }

    /// Adds a header to the requests for a connection, such as one that a proxy asks for. Its value is never shown. Default: none.
    #[must_use]
    pub fn with_header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        let header = format!("{}: {}", name.as_ref(), value.as_ref());
        self.header.push(Secret::new(header));
        self
    }

    sd_backend::tls_setters!();

    sd_backend::setters! {
        /// Limits how long a connection may take until it is a WebSocket, 100 ms to 60 s. Then the next endpoint has its turn. Default:
        /// [`DEFAULT_CONNECT_TIMEOUT`].
        with_connect_timeout(connect_timeout: Duration);

        /// Limits how long all may take that begins a session, with its connection: what is sent, its answers, and the first lists, 100 ms
        /// to 60 s. Default: [`DEFAULT_HANDSHAKE_TIMEOUT`].
        with_handshake_timeout(handshake_timeout: Duration);

        /// Sets how often the service is asked for a sign of life, 100 ms to 20 s. A connection on which nothing came for three of these is
        /// over. Default: [`DEFAULT_PING_INTERVAL`].
        with_ping_interval(ping_interval: Duration);

        /// Sets which parts of configurations are hidden where they are logged. Default: [`SecretWords::default`].
        with_secret_words(secret_words: SecretWords);

        /// Sets what becomes of the configuration that the service keeps for this module. Without it, none is asked for. Default: none.
        with_remote_config(remote_config: some RemoteConfig);

        /// Sets what becomes of the routes. Default: nothing.
        with_routes_receiver(routes_receiver: some RoutesReceiver);
    }

    /// When the ends of a connection are asked for a sign of life, and given up.
    pub(crate) fn times(&self) -> Times {
        Times {
            ping_every: self.ping_interval,
            silent_after: self.silent_after(),
        }
    }

    /// Which answers of the service are success.
    pub(crate) fn acks(&self) -> AckRule {
        if self.lenient_acks {
            AckRule::Any
        } else {
            AckRule::OnlyOk
        }
    }

    /// After which silence a connection is over.
    pub(crate) fn silent_after(&self) -> Duration {
        self.ping_interval * SILENT_INTERVALS
    }

    /// Whether something is wanted of the service even while nothing is read.
    pub(crate) fn is_kept(&self) -> bool {
        self.remote_config.is_some()
            || self.routes_receiver.is_some()
            || !self.required_modules.is_empty()
    }

    /// The modules that are followed from the beginning.
    pub(crate) fn followed(&self) -> impl Iterator<Item = &String> {
        self.required_modules.iter().chain(&self.optional_modules)
    }

    /// Whether the routes are wanted.
    pub(crate) fn wants_routes(&self) -> bool {
        self.routes || self.routes_receiver.is_some()
    }
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    #[test]
    fn a_url_says_the_same_as_the_setters() {
        let url = "isps://h1:1,h2/?module_name=m&version=1.2.3&transport=http&required_modules=a&required_modules=b\
                   &optional_modules=c&await_required=true&routes=true&allow_ipv6=true&lenient_acks=true&header=X-Token:%20t\
                   &ca=/ca&cert=/cert&key=/key&server_name=s&connect_timeout=1s&handshake_timeout=2s&ping_interval=3s";
        let read = ClusterConfig::from_url(url).unwrap();
        let set = ClusterConfig::new(["h1:1", "h2"])
            .with_module("m")
            .with_version("1.2.3")
            .with_transport(Transport::Http)
            .with_required_module("a")
            .with_required_module("b")
            .with_optional_module("c")
            .with_await_required(true)
            .with_routes(true)
            .with_allow_ipv6(true)
            .with_lenient_acks(true)
            .with_header("X-Token", "t")
            .with_tls(true)
            .with_ca("/ca")
            .with_identity("/cert", "/key")
            .with_server_name("s")
            .with_connect_timeout(Duration::from_secs(1))
            .with_handshake_timeout(Duration::from_secs(2))
            .with_ping_interval(Duration::from_secs(3));
        assert_eq!(format!("{read:?}"), format!("{set:?}"));
        assert_eq!(read.header, set.header);
        read.checked().unwrap();
    }

    #[test]
    fn a_bad_url_is_refused_and_says_why() {
        for (url, why) in [
            ("etcd://h", "isps://"),
            ("isp://h", "module_name"),
            ("isp:///?module_name=m", "endpoints"),
            ("isp://u:hunter2@h/?module_name=m", "no login"),
            ("isp://h/path?module_name=m", "has a path"),
            ("isp://h/?module_name=m&endpoints=i", "endpoints"),
            ("isps://h/?module_name=m&tls=false", "tls"),
            (
                "isp://h/?module_name=m&colour=red",
                "number 2 of the settings",
            ),
            ("isp://h/?module_name=m&ping_interval=soon", "a duration"),
            ("isp://h/?module_name=m&header=hunter2", "header"),
        ] {
            let error = ClusterConfig::from_url(url)
                .and_then(ClusterConfig::checked)
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
            let report = error.report().to_string();
            assert!(report.contains(why), "{url}: {report}");
            assert!(!report.contains("hunter"), "{report}");
        }
    }

    #[test]
    fn serde_takes_the_keys_and_refuses_unknown_ones() {
        let json = r#"{"endpoints":["h"],"module_name":"m","serves":[{"path":"a","inner":true}],
                       "metrics_autodiscovery":{"address":"h:1","labels":{"app":"m"}},"header":["a: hunter2"]}"#;
        let config: ClusterConfig = serde_json::from_str(json).unwrap();
        assert!(config.serves[0].inner);
        assert!(!format!("{config:?}").contains("hunter2"));
        config.checked().unwrap();
        let error = serde_json::from_str::<ClusterConfig>(r#"{"endpoint":"h"}"#).unwrap_err();
        assert!(error.to_string().contains("endpoint"), "{error}");
    }
}
