//! What the user may set: where Redis is, how to log in, where records are.

pub(crate) mod format;
pub(crate) mod rules;
pub(crate) mod topology;
pub(crate) mod validation;

use std::path::PathBuf;
use std::time::Duration;

use sd_backend::{Secret, Servers};
use sd_core::{Endpoint, Result};
use serde::Deserialize;

use crate::config::format::Format;
use crate::config::rules::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_ELECTION_PREFIX, DEFAULT_HEARTBEAT_TTL,
    DEFAULT_KEEP_ALIVE_INTERVAL, DEFAULT_POLL_INTERVAL, DEFAULT_PORT, DEFAULT_PREFIX,
    DEFAULT_PRIMARY, DEFAULT_REQUEST_TIMEOUT, DEFAULT_SENTINEL_PORT, READ_ENDPOINTS, RULES,
    URL_SCHEMES,
};
use crate::config::topology::Topology;

/// How to reach one Redis or Valkey, alone, behind Sentinels or as a Cluster, and where records are. [`connect`](crate::connect) validates
/// it.
///
/// Serde and [`from_url`](Self::from_url) take the same keys. Unknown keys are refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RedisConfig {
    pub(crate) endpoints: Servers,
    pub(crate) topology: Topology,
    pub(crate) primary: String,
    pub(crate) database: u16,
    pub(crate) prefix: String,
    pub(crate) election_prefix: String,
    pub(crate) format: Format,
    #[serde(with = "humantime_serde")]
    pub(crate) heartbeat_ttl: Duration,
    pub(crate) read_endpoints: Servers,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) sentinel_user: Option<String>,
    pub(crate) sentinel_password: Option<Secret>,
    pub(crate) sentinel_password_file: Option<PathBuf>,
    pub(crate) tls: Option<bool>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) server_name: Option<String>,
    #[serde(with = "humantime_serde")]
    pub(crate) ttl: Option<Duration>,
    #[serde(with = "humantime_serde")]
    pub(crate) connect_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) request_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) poll_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) keep_alive_interval: Duration,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            endpoints: Servers::default(),
            topology: Topology::default(),
            primary: DEFAULT_PRIMARY.to_owned(),
            database: 0,
            prefix: DEFAULT_PREFIX.to_owned(),
            election_prefix: DEFAULT_ELECTION_PREFIX.to_owned(),
            format: Format::default(),
            heartbeat_ttl: DEFAULT_HEARTBEAT_TTL,
            read_endpoints: Servers::default(),
            user: None,
            password: None,
            password_file: None,
            sentinel_user: None,
            sentinel_password: None,
            sentinel_password_file: None,
            tls: None,
            ca: None,
            cert: None,
            key: None,
            server_name: None,
            ttl: None,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            request_timeout: DEFAULT_REQUEST_TIMEOUT,
            poll_interval: DEFAULT_POLL_INTERVAL,
            keep_alive_interval: DEFAULT_KEEP_ALIVE_INTERVAL,
        }
    }
}

impl RedisConfig {
    /// Servers at these endpoints, `host:port` each.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Servers from a URL that holds all settings:
    ///
    /// ```text
    /// redis://user:password@host:6379/0?ttl=10s
    /// redis+sentinel://user:password@s1:26379,s2:26379/mymaster/0
    /// redis+cluster://user:password@n1:6379,n2:6379
    /// ```
    ///
    /// The part before the `?` sets `endpoints`, `topology`, `user` and `password`. The path is `database`, and before it `primary` for
    /// Sentinels. The keys after the `?` are those of serde. The schemes that begin with `rediss` set `tls=true`.
    ///
    /// # Errors
    /// `InvalidInput` names the part that is wrong or the key that is unknown.
    pub fn from_url(url: &str) -> Result<Self> {
        let url = RULES.url(url, &URL_SCHEMES)?;
        let mut config: Self = url.settings()?;
        let topology = match url.scheme().split_once('+') {
            Some((_, "sentinel")) => Topology::Sentinel,
            Some(_) => Topology::Cluster,
            None => Topology::Standalone,
        };
        let is_default = |set: &String| set == DEFAULT_PRIMARY;
        let password = url.password().map(Secret::new);
        let path: Vec<&str> = url
            .path()
            .split('/')
            .filter(|part| !part.is_empty())
            .collect();
        let (primary, database) = match (topology, path.as_slice()) {
            (_, []) => (None, None),
            (Topology::Sentinel, [primary]) => (Some(*primary), None),
            (Topology::Sentinel, [primary, database]) => (Some(*primary), Some(*database)),
            (Topology::Standalone | Topology::Cluster, [database]) => (None, Some(*database)),
            _ => return Err(RULES.broken("url", wrong_path(topology))),
        };
        RULES.given_once(&[
            ("endpoints", !config.endpoints.is_empty()),
            ("topology", config.topology != Topology::default()),
            ("user", url.username().is_some() && config.user.is_some()),
            ("password", password.is_some() && config.password.is_some()),
            ("primary", primary.is_some() && !is_default(&config.primary)),
            ("database", database.is_some() && config.database != 0),
        ])?;
        RULES.tls_scheme(url.scheme().starts_with("rediss"), &mut config.tls)?;
        config.endpoints = url.hosts().iter().collect();
        config.topology = topology;
        config.user = config.user.or(url.username().map(str::to_owned));
        config.password = config.password.or(password);
        if let Some(primary) = primary {
            primary.clone_into(&mut config.primary);
        }
        if let Some(database) = database {
            let number = database.parse();
            config.database = number.map_err(|_| RULES.broken("url", wrong_path(topology)))?;
        }
        Ok(config)
    }

    sd_backend::setters! {
        /// Sets how the servers belong together. Default: [`Topology::Standalone`].
        with_topology(topology: Topology);

        /// Sets the name under which Sentinels watch the primary. Default: [`DEFAULT_PRIMARY`].
        with_primary(primary: into String);

        /// Uses this database of the server. A Cluster has database 0 alone. Default: 0.
        with_database(database: u16);

        /// Begins the keys and channels of records with this text. Default: [`DEFAULT_PREFIX`].
        with_prefix(prefix: into String);

        /// Begins the keys and channels of elections with this text. Default: [`DEFAULT_ELECTION_PREFIX`].
        with_election_prefix(election_prefix: into String);

        /// Sets how records are stored. Default: [`Format::Json`].
        with_format(format: Format);

        /// With [`Format::Heartbeat`], sets how long a process may be silent, 1 s to 1 h, in whole seconds. It is the time-to-live of every
        /// registration then, and all programs that share a service must agree on it. Default: [`DEFAULT_HEARTBEAT_TTL`].
        with_heartbeat_ttl(heartbeat_ttl: Duration);
    }

    /// With [`Format::Heartbeat`] and [`Topology::Standalone`], reads at these servers, primaries or replicas, of which one that answers is
    /// used. What is written goes to the endpoints. A set is as old as the replica is behind, and what ends is found out by its clock.
    /// Default: reads at the endpoints as well.
    #[must_use]
    pub fn with_read_endpoints(
        mut self,
        read_endpoints: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.read_endpoints = read_endpoints.into_iter().collect();
        self
    }

    sd_backend::login_setters!();

    /// Logs in at Sentinels with this user and password. Default: without a login, as Sentinels are mostly set up.
    #[must_use]
    pub fn with_sentinel_login(
        mut self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.sentinel_user = Some(user.into());
        self.sentinel_password = Some(Secret::new(password));
        self.sentinel_password_file = None;
        self
    }

    /// Logs in at Sentinels with the password in a file. The file is read for each login, so a changed password needs no restart. Line ends
    /// at the end of the file are dropped.
    #[must_use]
    pub fn with_sentinel_password_file(
        mut self,
        user: impl Into<String>,
        password_file: impl Into<PathBuf>,
    ) -> Self {
        self.sentinel_user = Some(user.into());
        self.sentinel_password = None;
        self.sentinel_password_file = Some(password_file.into());
        self
    }

    sd_backend::tls_setters!();

    sd_backend::setters! {
        /// Sets the time-to-live of registrations, 1 s to 24 h. Default: that of core.
        with_ttl(ttl: some Duration);

        /// Limits how long connecting to one server may take, 100 ms to 1 min. Default: [`DEFAULT_CONNECT_TIMEOUT`].
        with_connect_timeout(connect_timeout: Duration);

        /// Limits how long to wait for the answer to one request, 100 ms to 1 min. Default: [`DEFAULT_REQUEST_TIMEOUT`].
        with_request_timeout(request_timeout: Duration);

        /// Sets how often readers ask whether anything has changed that they were not told, 100 ms to 1 h. They are mostly told at once.
        /// This bounds how long they miss what a server could not publish, or what another program changed. Default:
        /// [`DEFAULT_POLL_INTERVAL`].
        with_poll_interval(poll_interval: Duration);

        /// Pings the connection that tells of changes this often, 500 ms to 1 h, and gives it up if no answer comes within the request
        /// timeout. Default: [`DEFAULT_KEEP_ALIVE_INTERVAL`].
        with_keep_alive_interval(keep_alive_interval: Duration);
    }

    pub(crate) fn default_port(&self) -> u16 {
        match self.topology {
            Topology::Sentinel => DEFAULT_SENTINEL_PORT,
            Topology::Standalone | Topology::Cluster => DEFAULT_PORT,
        }
    }

    /// The endpoints of a [checked](Self::checked) configuration, as addresses.
    pub(crate) fn addresses(&self) -> Vec<Endpoint> {
        let addresses = self.endpoints.addresses(RULES, self.default_port());
        addresses.unwrap_or_default()
    }

    /// The servers that are read, if they are named apart, of a [checked](Self::checked) configuration.
    pub(crate) fn read_addresses(&self) -> Vec<Endpoint> {
        let addresses = self
            .read_endpoints
            .addresses_for(READ_ENDPOINTS, RULES, DEFAULT_PORT);
        addresses.unwrap_or_default()
    }

    /// In how long a reader asks again what it was not told. Readers that begin at once do not ask at once.
    pub(crate) fn next_poll(&self) -> Duration {
        self.poll_interval.mul_f64(0.9 + 0.2 * fastrand::f64())
    }

    /// How long a feed is silent at most that asks so often, and may have to ask several times.
    pub(crate) fn silence_limit(&self) -> Duration {
        self.poll_interval.mul_f64(1.1) + self.request_timeout * 3
    }

    pub(crate) fn speaks_tls(&self) -> bool {
        self.tls().wanted() == Some(true)
    }
}

fn wrong_path(topology: Topology) -> &'static str {
    match topology {
        Topology::Standalone => {
            "its path must be the number of a database, for instance redis://host/0"
        }
        Topology::Sentinel => {
            "its path must be the name of the primary and the number of a database, for instance redis+sentinel://host/mymaster/0"
        }
        Topology::Cluster => "it must have no path but /0, because a Cluster has one database",
    }
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    #[test]
    fn a_password_shows_nowhere() {
        let config = RedisConfig::new(["u:hunter2@h:1"])
            .with_user("u", "hunter2")
            .with_sentinel_login("v", "hunter2");
        assert!(!format!("{config:?}").contains("hunter2"));
        let refused = config.checked().unwrap_err().report().to_string();
        assert!(!refused.contains("hunter2"));
    }

    #[test]
    fn a_url_says_the_same_as_the_setters() {
        let url = "rediss://u:p%40ss@h1:1,h2/3?prefix=s&election_prefix=e&format=heartbeat&heartbeat_ttl=5s&read_endpoints=h3&read_endpoints=h4:4&ttl=7s&ca=/ca&cert=/cert&key=/key&server_name=n\
                   &connect_timeout=1s&request_timeout=2s&poll_interval=3s&keep_alive_interval=4s";
        let read = RedisConfig::from_url(url).unwrap();
        let set = RedisConfig::new(["h1:1", "h2"])
            .with_database(3)
            .with_prefix("s")
            .with_election_prefix("e")
            .with_format(Format::Heartbeat)
            .with_heartbeat_ttl(Duration::from_secs(5))
            .with_read_endpoints(["h3", "h4:4"])
            .with_user("u", "p@ss")
            .with_ttl(Duration::from_secs(7))
            .with_tls(true)
            .with_ca("/ca")
            .with_identity("/cert", "/key")
            .with_server_name("n")
            .with_connect_timeout(Duration::from_secs(1))
            .with_request_timeout(Duration::from_secs(2))
            .with_poll_interval(Duration::from_secs(3))
            .with_keep_alive_interval(Duration::from_secs(4));
        assert_eq!(format!("{read:?}"), format!("{set:?}"));
        assert_eq!(read.password, set.password);
        assert!(read.checked().unwrap().speaks_tls());
    }

    #[test]
    fn the_scheme_says_how_servers_belong_together() {
        let url = "redis+sentinel://u:p@s1,s2:1/main/2?sentinel_user=v&sentinel_password=q";
        let read = RedisConfig::from_url(url).unwrap().checked().unwrap();
        let set = RedisConfig::new(["s1", "s2:1"])
            .with_topology(Topology::Sentinel)
            .with_primary("main")
            .with_database(2)
            .with_user("u", "p")
            .with_sentinel_login("v", "q");
        assert_eq!(format!("{read:?}"), format!("{set:?}"));
        assert_eq!(read.addresses()[0].to_string(), "s1:26379");

        let read = RedisConfig::from_url("rediss+cluster://n1,n2").unwrap();
        assert_eq!(read.topology, Topology::Cluster);
        assert_eq!(read.addresses()[0].to_string(), "n1:6379");
        assert!(read.speaks_tls());
        let named = RedisConfig::from_url("redis+sentinel://s1").unwrap();
        assert_eq!(named.primary, DEFAULT_PRIMARY);
    }

    #[test]
    fn a_bad_url_is_refused_and_says_why() {
        for (url, why) in [
            ("etcd://h", "rediss://"),
            ("rediss://h?tls=false", "tls"),
            ("redis:///0", "endpoints"),
            ("redis://h/db", "number of a database"),
            ("redis://h/1/2", "number of a database"),
            ("redis://h/-1", "number of a database"),
            ("redis+cluster://h/1", "database"),
            ("redis+sentinel://h/a/b", "name of the primary"),
            ("redis://h?colour=red", "number 1 of the settings"),
            ("redis://h?ttl=soon", "a duration"),
            ("redis://h?format=xml", "format: unknown variant"),
            ("redis://u:hunter2@h?user=v", "user"),
            ("redis://u:hunter2@h?password=hunter3", "password"),
            ("redis://u@h", "password"),
            ("redis://h/1?database=2", "database"),
            ("redis://h?endpoints=i", "endpoints"),
        ] {
            let error = RedisConfig::from_url(url)
                .and_then(RedisConfig::checked)
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
            let report = error.report().to_string();
            assert!(report.contains(why), "{url}: {report}");
            assert!(!report.contains("hunter"), "{report}");
        }
    }

    #[test]
    fn serde_takes_the_keys_and_refuses_unknown_ones() {
        let config: RedisConfig =
            serde_json::from_str(r#"{"endpoints":["h"],"topology":"cluster","ttl":"1s"}"#).unwrap();
        assert_eq!(config.topology, Topology::Cluster);
        assert_eq!(config.ttl, Some(Duration::from_secs(1)));
        let error = serde_json::from_str::<RedisConfig>(r#"{"endpoint":"h"}"#).unwrap_err();
        assert!(error.to_string().contains("endpoint"), "{error}");
    }
}
