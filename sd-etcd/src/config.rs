//! What the user may set: where etcd is, how to log in, how records are written.

pub(crate) mod format;
pub(crate) mod rules;
pub(crate) mod validation;

use std::path::PathBuf;
use std::time::Duration;

use sd_backend::{Secret, Servers};
use sd_core::Result;
use serde::Deserialize;

use crate::config::format::Format;
use crate::config::rules::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_ELECTION_PREFIX, DEFAULT_KEEP_ALIVE_INTERVAL,
    DEFAULT_KEEP_ALIVE_TIMEOUT, DEFAULT_PREFIX, DEFAULT_READ_TIMEOUT, DEFAULT_REQUEST_TIMEOUT,
    RULES, URL_SCHEMES,
};

/// How to reach one etcd cluster and how to write to it. [`connect`](crate::connect) validates it.
///
/// Serde and [`from_url`](Self::from_url) take the same keys. Unknown keys are refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct EtcdConfig {
    pub(crate) endpoints: Servers,
    pub(crate) follow_members: bool,
    pub(crate) prefix: String,
    pub(crate) election_prefix: String,
    pub(crate) format: Format,
    #[serde(with = "humantime_serde")]
    pub(crate) ttl: Option<Duration>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) tls: Option<bool>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) server_name: Option<String>,
    #[serde(with = "humantime_serde")]
    pub(crate) connect_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) request_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) read_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) keep_alive_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) keep_alive_timeout: Duration,
}

impl Default for EtcdConfig {
    fn default() -> Self {
        Self {
            endpoints: Servers::default(),
            follow_members: false,
            prefix: DEFAULT_PREFIX.to_owned(),
            election_prefix: DEFAULT_ELECTION_PREFIX.to_owned(),
            format: Format::default(),
            ttl: None,
            user: None,
            password: None,
            password_file: None,
            tls: None,
            ca: None,
            cert: None,
            key: None,
            server_name: None,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            request_timeout: DEFAULT_REQUEST_TIMEOUT,
            read_timeout: DEFAULT_READ_TIMEOUT,
            keep_alive_interval: DEFAULT_KEEP_ALIVE_INTERVAL,
            keep_alive_timeout: DEFAULT_KEEP_ALIVE_TIMEOUT,
        }
    }
}

impl EtcdConfig {
    /// A cluster at these endpoints: `http://host:port`, `https://host:port`, or `host:port`. For the last form
    /// [`with_tls`](Self::with_tls) selects the scheme. Name all members: one that answers is enough.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().collect(),
            ..Self::default()
        }
    }

    /// A cluster from a URL that holds all settings:
    ///
    /// ```text
    /// etcd://user:password@h1:2379,h2:2379/prefix?ttl=10s&format=gokit&ca=/path/ca.pem
    /// ```
    ///
    /// The part before the `?` sets `endpoints`, `user`, `password` and `prefix`; the keys after the `?` are those of serde.
    /// `etcds://` is `etcd://` with `tls=true`.
    ///
    /// # Errors
    /// `InvalidInput` names the part that is wrong or the key that is unknown.
    pub fn from_url(url: &str) -> Result<Self> {
        let url = RULES.url(url, &URL_SCHEMES)?;
        let mut config: Self = url.settings()?;
        let password = url.password().map(Secret::new);
        let prefix = Some(url.path().trim_end_matches('/')).filter(|path| !path.is_empty());
        RULES.given_once(&[
            ("endpoints", !config.endpoints.is_empty()),
            ("user", url.username().is_some() && config.user.is_some()),
            ("password", password.is_some() && config.password.is_some()),
            (
                "prefix",
                prefix.is_some() && config.prefix != DEFAULT_PREFIX,
            ),
        ])?;
        RULES.tls_scheme(url.scheme() != URL_SCHEMES[0], &mut config.tls)?;
        config.endpoints = url.hosts().iter().collect();
        config.user = config.user.or(url.username().map(str::to_owned));
        config.password = config.password.or(password);
        if let Some(prefix) = prefix {
            prefix.clone_into(&mut config.prefix);
        }
        Ok(config)
    }

    sd_backend::setters! {
        /// Asks the cluster for its members while connected, and tries the addresses that they advertise to clients after those that are
        /// named here. So all members that are named may be replaced, one after another. An advertised address must have the scheme of
        /// the named ones and answer for the same cluster; a login is sent there, too. Default: false, since clients may not reach
        /// what members advertise.
        with_follow_members(follow_members: bool);

        /// Keeps records under this key prefix: `<prefix>/<service>/<id>`. Slashes at its end are dropped. Default:
        /// [`DEFAULT_PREFIX`].
        with_prefix(prefix: into String);

        /// Keeps elections under this key prefix: `<election_prefix>/<name>/`. Neither this prefix nor that of records may lie inside the
        /// other. Slashes at its end are dropped. Default: [`DEFAULT_ELECTION_PREFIX`].
        with_election_prefix(election_prefix: into String);

        /// Sets how records are stored. Default: [`Format::Json`].
        with_format(format: Format);

        /// Sets the time-to-live that registrations ask for unless they set their own. Fractions of seconds are rounded up. Default:
        /// [`sd_core::RegistrationConfig::DEFAULT_TTL`].
        with_ttl(ttl: some Duration);
    }

    sd_backend::login_setters!();
    sd_backend::tls_setters!();

    sd_backend::setters! {
        /// Limits how long connecting to one endpoint may take, 100 ms to 1 min. Default: [`DEFAULT_CONNECT_TIMEOUT`].
        with_connect_timeout(connect_timeout: Duration);

        /// Limits how long one request may take, connecting included, 100 ms to 1 min. Default: [`DEFAULT_REQUEST_TIMEOUT`].
        with_request_timeout(request_timeout: Duration);

        /// Limits how long it may take to read one service, or the list of services, with all its pages: 100 ms to 10 min. A server that
        /// always has more to send is given up then. Default: [`DEFAULT_READ_TIMEOUT`].
        with_read_timeout(read_timeout: Duration);
    }

    /// Sets how soon a dead server is detected. A connection with an open watch or request is pinged after `interval` of silence, and
    /// given up if no answer comes within `timeout`. The interval is at least 1 s. Electors' connections are quiet and are pinged no
    /// more often than by default, since etcd closes a connection that is pinged without need. Defaults:
    /// [`DEFAULT_KEEP_ALIVE_INTERVAL`] and [`DEFAULT_KEEP_ALIVE_TIMEOUT`].
    #[must_use]
    pub fn with_keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keep_alive_interval = interval;
        self.keep_alive_timeout = timeout;
        self
    }
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    #[test]
    fn a_password_shows_nowhere() {
        let config = EtcdConfig::new(["u:hunter2@h:1"]).with_user("u", "hunter2");
        let shown = format!("{:?}", config.password);
        assert_eq!(shown, "Some(***)");
        let refused = config.checked().unwrap_err().report().to_string();
        assert!(!refused.contains("hunter2"));
    }

    #[test]
    fn a_url_says_the_same_as_the_setters() {
        let url = "etcd://u:p%40ss@h1:1,h2/a/b?election_prefix=/a/e&ttl=7s&format=gokit&tls=true&ca=/ca&cert=/cert\
                   &key=/key&server_name=s&connect_timeout=1s&read_timeout=2m&keep_alive_interval=2s&follow_members=true";
        let read = EtcdConfig::from_url(url).unwrap();
        let set = EtcdConfig::new(["h1:1", "h2"])
            .with_prefix("/a/b")
            .with_election_prefix("/a/e")
            .with_user("u", "p@ss")
            .with_ttl(Duration::from_secs(7))
            .with_format(Format::GoKit)
            .with_tls(true)
            .with_ca("/ca")
            .with_identity("/cert", "/key")
            .with_server_name("s")
            .with_connect_timeout(Duration::from_secs(1))
            .with_read_timeout(Duration::from_secs(120))
            .with_keep_alive(Duration::from_secs(2), DEFAULT_KEEP_ALIVE_TIMEOUT)
            .with_follow_members(true);
        assert_eq!(format!("{read:?}"), format!("{set:?}"));
        assert_eq!(read.password, set.password);

        let with_file = EtcdConfig::from_url("etcd://u@h?password_file=/run/secret").unwrap();
        assert!(with_file.checked().is_ok());
    }

    #[test]
    fn the_scheme_with_an_s_asks_for_tls() {
        for (url, endpoint) in [
            ("etcd://h", "http://h:2379"),
            ("etcds://h", "https://h:2379"),
            ("etcds://h?tls=true", "https://h:2379"),
        ] {
            let config = EtcdConfig::from_url(url).unwrap().checked().unwrap();
            assert_eq!(*config.endpoints, [endpoint], "{url}");
        }
    }

    #[test]
    fn a_bad_url_is_refused_and_says_why() {
        for (url, why) in [
            ("consul://h", "etcds://"),
            ("etcd+https://h", "etcds://"),
            ("etcds://h?tls=false", "tls"),
            ("etcd://:hunter2@h", "needs a user"),
            ("etcd:///services", "endpoints"),
            ("etcd://h?colour=red", "number 1 of the settings"),
            ("etcd://h?ttl=soon", "a duration"),
            ("etcd://h?format=xml", "format: unknown variant"),
            ("etcd://u:p@h?user=v", "user"),
            ("etcd://u:hunter2@h?password=hunter3", "password"),
            ("etcd://h/a?prefix=/b", "prefix"),
            ("etcd://h?endpoints=i", "endpoints"),
        ] {
            let error = EtcdConfig::from_url(url)
                .and_then(EtcdConfig::checked)
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
            let report = error.report().to_string();
            assert!(report.contains(why), "{url}: {report}");
            assert!(!report.contains("hunter"), "{report}");
        }
    }

    #[test]
    fn serde_takes_the_keys_and_refuses_unknown_ones() {
        let config: EtcdConfig =
            serde_json::from_str(r#"{"endpoints":["h"],"format":"gokit","connect_timeout":"1s"}"#)
                .unwrap();
        assert_eq!(config.format, Format::GoKit);
        assert_eq!(config.connect_timeout, Duration::from_secs(1));
        let error = serde_json::from_str::<EtcdConfig>(r#"{"endpoint":"h"}"#).unwrap_err();
        assert!(error.to_string().contains("endpoint"), "{error}");
    }
}
