//! The settings: where Consul is, how to log in, what to read and how instances are checked.

pub(crate) mod check_kind;
pub(crate) mod consistency;
pub(crate) mod rules;
mod validation;

use std::path::PathBuf;
use std::time::Duration;

use sd_backend::{Secret, Servers};
use sd_core::Result;
use serde::Deserialize;

use crate::config::check_kind::CheckKind;
use crate::config::consistency::Consistency;
use crate::config::rules::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_DEREGISTER_CRITICAL_AFTER, DEFAULT_ELECTION_PREFIX,
    DEFAULT_LOCK_DELAY, DEFAULT_MAX_STALE, DEFAULT_REQUEST_TIMEOUT, DEFAULT_WAIT,
    DEFAULT_ZONE_META, RULES, URL_SCHEMES,
};

/// How to reach Consul, what to read there and how to register. [`connect`](crate::connect) checks it.
///
/// It can be deserialized with serde, and [`from_url`](Self::from_url) takes the same keys. Unknown keys are refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ConsulConfig {
    pub(crate) endpoints: Servers,
    pub(crate) token: Option<Secret>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) token_env: Option<String>,
    pub(crate) tls: Option<bool>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) server_name: Option<String>,
    pub(crate) dc: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) partition: Option<String>,
    pub(crate) consistency: Consistency,
    #[serde(with = "humantime_serde")]
    pub(crate) max_stale: Duration,
    pub(crate) warnings: bool,
    pub(crate) tag: Vec<String>,
    pub(crate) filter: Option<String>,
    pub(crate) near: Option<String>,
    pub(crate) nearest: Option<usize>,
    pub(crate) zone_meta: String,
    pub(crate) zone_tag: Option<String>,
    #[serde(with = "humantime_serde")]
    pub(crate) wait: Duration,
    pub(crate) check: CheckKind,
    pub(crate) check_path: Option<String>,
    pub(crate) check_tls: bool,
    #[serde(with = "humantime_serde")]
    pub(crate) deregister_critical_after: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) ttl: Option<Duration>,
    pub(crate) election_prefix: String,
    #[serde(with = "humantime_serde")]
    pub(crate) lock_delay: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) connect_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) request_timeout: Duration,
}

impl Default for ConsulConfig {
    fn default() -> Self {
        Self {
            endpoints: Servers::default(),
            token: None,
            token_file: None,
            token_env: None,
            tls: None,
            ca: None,
            cert: None,
            key: None,
            server_name: None,
            dc: None,
            namespace: None,
            partition: None,
            consistency: Consistency::default(),
            max_stale: DEFAULT_MAX_STALE,
            warnings: false,
            tag: Vec::new(),
            filter: None,
            near: None,
            nearest: None,
            zone_meta: DEFAULT_ZONE_META.to_owned(),
            zone_tag: None,
            wait: DEFAULT_WAIT,
            check: CheckKind::default(),
            check_path: None,
            check_tls: false,
            deregister_critical_after: DEFAULT_DEREGISTER_CRITICAL_AFTER,
            ttl: None,
            election_prefix: DEFAULT_ELECTION_PREFIX.to_owned(),
            lock_delay: DEFAULT_LOCK_DELAY,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            request_timeout: DEFAULT_REQUEST_TIMEOUT,
        }
    }
}

impl ConsulConfig {
    /// Consul behind these agents: `http://host:port`, `https://host:port`, or `host:port`, for which [`with_tls`](Self::with_tls)
    /// decides. Usually there is one, the agent on the same machine ([`DEFAULT_ENDPOINT`](crate::DEFAULT_ENDPOINT) if none is named).
    /// Services are registered at that agent. Each further agent is used while those before it do not answer.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Consul from a URL with all its settings:
    ///
    /// ```text
    /// consul://token@h1:8500/?dc=eu-1&ttl=10s&ca=/path/ca.pem
    /// ```
    ///
    /// `token` and `endpoints` stand before the `/`. The keys after the `?` are those of serde; `tag` may be repeated.
    /// `consul+https://` is `consul://` with `tls=true`.
    ///
    /// # Errors
    /// `InvalidInput` names the part of the URL that is wrong, or the unknown key.
    pub fn from_url(url: &str) -> Result<Self> {
        let url = RULES.url(url, &URL_SCHEMES)?;
        let mut config: Self = url.settings()?;
        if !matches!(url.path(), "" | "/") {
            return Err(RULES.broken(
                "url",
                "Consul has no folders of services: remove the path between the hosts and the ?",
            ));
        }
        if url.password().is_some() {
            return Err(RULES.broken(
                "token",
                "write the token alone before the @ of the URL, without a colon",
            ));
        }
        let token = url.username().map(Secret::new);
        RULES.given_once(&[
            ("endpoints", !config.endpoints.is_empty()),
            ("token", token.is_some() && config.token.is_some()),
        ])?;
        RULES.tls_scheme(url.scheme() != URL_SCHEMES[0], &mut config.tls)?;
        config.endpoints = url.hosts().iter().collect();
        config.token = config.token.or(token);
        Ok(config)
    }

    /// Sends this ACL token with every request. Default: none, for which Consul uses its anonymous token.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Secret::new(token));
        (self.token_file, self.token_env) = (None, None);
        self
    }

    /// Sends the ACL token in this file. The file is read for each connection, and again when the token is refused, so a new token
    /// needs no restart. Trailing line ends are dropped.
    #[must_use]
    pub fn with_token_file(mut self, token_file: impl Into<PathBuf>) -> Self {
        self.token_file = Some(token_file.into());
        (self.token, self.token_env) = (None, None);
        self
    }

    /// Sends the ACL token in the environment variable of this name, `CONSUL_HTTP_TOKEN` for instance. No other variable is read, and
    /// none without this setting.
    #[must_use]
    pub fn with_token_env(mut self, variable: impl Into<String>) -> Self {
        self.token_env = Some(variable.into());
        (self.token, self.token_file) = (None, None);
        self
    }

    sd_backend::tls_setters!();

    sd_backend::setters! {
        /// Reads services of this datacenter, and holds elections there. Registrations are always in the agent's own datacenter, which is
        /// also the default. For several datacenters, make a registry for each and a [`Merge`](sd_core::combine::Merge) of them.
        with_datacenter(dc: some into String);

        /// Uses this namespace (Consul Enterprise only). Default: that of the token.
        with_namespace(namespace: some into String);

        /// Uses this admin partition (Consul Enterprise only). Default: the agent's own.
        with_partition(partition: some into String);

        /// Sets how up to date sets must be. Default [`Consistency::Default`]. It does not affect registrations and elections.
        with_consistency(consistency: Consistency);

        /// Limits the age of sets. If a server or cache has been out of touch for longer, its set is served, but marked as stale. Default
        /// [`DEFAULT_MAX_STALE`], 100 ms to 1 day. The age is also in [`Snapshot::as_of`](sd_core::Snapshot::as_of).
        with_max_stale(max_stale: Duration);

        /// Treats instances with a check in the state *warning* as healthy, too. Default: only those whose checks all pass.
        with_warnings(warnings: bool);
    }

    /// Reads only instances with this tag. Called again, it requires both tags.
    #[must_use]
    pub fn with_tag(mut self, tag: impl Into<String>) -> Self {
        self.tag.push(tag.into());
        self
    }

    sd_backend::setters! {
        /// Reads only instances that match this expression in Consul's filter language:
        /// `Service.Meta.team == "red" and "blue" in Service.Tags`. If Consul cannot parse the expression, every subscription reports a
        /// permanent error.
        with_filter(filter: some into String);
    }

    /// Keeps only the `nearest` instances by Consul's estimate of the round-trip time from the node `near`. `_agent` stands for the
    /// agent's own node. The estimate changes all the time; the selection changes only when the service does.
    #[must_use]
    pub fn with_nearest(mut self, near: impl Into<String>, nearest: usize) -> Self {
        self.near = Some(near.into());
        self.nearest = Some(nearest);
        self
    }

    sd_backend::setters! {
        /// Takes an instance's zone from this key of its node's metadata if the instance states none. Default [`DEFAULT_ZONE_META`].
        with_zone_from_node_meta(zone_meta: into String);

        /// Takes an instance's zone from the tag with this prefix, `zone=` for instance, if the instance states none. It takes precedence
        /// over the node's metadata. Default: from no tag.
        with_zone_from_tag(zone_tag: some into String);

        /// Sets how long a blocking query waits for a change. Default [`DEFAULT_WAIT`], 1 s to 10 min. A feed notices a frozen agent after
        /// this time, a sixteenth more, and the request timeout.
        with_wait(wait: Duration);

        /// Sets how Consul checks our instances. Default [`CheckKind::Ttl`]. Checks of the other kinds run once every time-to-live.
        with_check(check: CheckKind);

        /// Sets what the agent requests: the path of an HTTP check, by default `/`, or the service of a gRPC check, by default the whole
        /// server.
        with_check_path(check_path: some into String);

        /// Lets the agent use TLS when it checks an instance. Default false.
        with_check_tls(check_tls: bool);

        /// Sets after how long in a critical state Consul removes the registration of a crashed instance. Default
        /// [`DEFAULT_DEREGISTER_CRITICAL_AFTER`], which is also the minimum; at most 7 days. Consul looks every 30 s. Readers stop seeing
        /// the instance earlier, when its time-to-live has passed.
        with_deregister_critical_after(deregister_critical_after: Duration);

        /// Sets the time-to-live of registrations that do not set their own. Default [`sd_core::RegistrationConfig::DEFAULT_TTL`].
        with_ttl(ttl: some Duration);

        /// Keeps elections under this key prefix, as `<election_prefix>/<name>/`. Default [`DEFAULT_ELECTION_PREFIX`]. It consists of
        /// letters, digits, `-`, `_`, `.` and slashes between them.
        with_election_prefix(election_prefix: into String);

        /// Sets the lock-delay: how long no candidate may lead after Consul has ended the session of a lost leader. Default
        /// [`DEFAULT_LOCK_DELAY`], at most 60 s, which is Consul's limit. A leader that resigns is replaced at once.
        with_lock_delay(lock_delay: Duration);

        /// Limits how long connecting to one endpoint may take. Default [`DEFAULT_CONNECT_TIMEOUT`], 100 ms to 1 min.
        with_connect_timeout(connect_timeout: Duration);

        /// Limits how long one request may take, connecting and reading credential files included, and how long a blocking query may take
        /// beyond its wait. Default [`DEFAULT_REQUEST_TIMEOUT`], 100 ms to 1 min.
        with_request_timeout(request_timeout: Duration);
    }

    /// Whether requests show a token.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some() || self.reads_token()
    }

    /// Whether the token is read from outside of this process, where it may be replaced.
    pub(crate) fn reads_token(&self) -> bool {
        self.token_file.is_some() || self.token_env.is_some()
    }
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    #[test]
    fn a_token_shows_nowhere() {
        let config = ConsulConfig::new(["hunter2@h:1"]).with_token("hunter2");
        assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
        let refused = config.checked().unwrap_err().report().to_string();
        assert!(!refused.contains("hunter2"), "{refused}");
        let url = "consul://hunter2@h?colour=red";
        let refused = ConsulConfig::from_url(url)
            .unwrap_err()
            .report()
            .to_string();
        assert!(
            refused.contains("settings after the ?") && !refused.contains("hunter2"),
            "{refused}"
        );
    }

    #[test]
    fn a_url_says_the_same_as_the_setters() {
        let url = "consul://to%40ken@h1:1,h2/?tls=true&ca=/ca&cert=/cert&key=/key&server_name=s&dc=eu&namespace=n&partition=p\
                   &consistency=stale&max_stale=3s&warnings=true&tag=a&tag=b&filter=x&near=_agent&nearest=3&zone_meta=az\
                   &zone_tag=zone%3D&wait=10s&check=grpc&check_path=svc&check_tls=true&deregister_critical_after=2m&ttl=7s\
                   &election_prefix=a/b&lock_delay=1s&connect_timeout=1s&request_timeout=2s";
        let read = ConsulConfig::from_url(url).unwrap();
        let set = ConsulConfig::new(["h1:1", "h2"])
            .with_token("to@ken")
            .with_tls(true)
            .with_ca("/ca")
            .with_identity("/cert", "/key")
            .with_server_name("s")
            .with_datacenter("eu")
            .with_namespace("n")
            .with_partition("p")
            .with_consistency(Consistency::Stale)
            .with_max_stale(Duration::from_secs(3))
            .with_warnings(true)
            .with_tag("a")
            .with_tag("b")
            .with_filter("x")
            .with_nearest("_agent", 3)
            .with_zone_from_node_meta("az")
            .with_zone_from_tag("zone=")
            .with_wait(Duration::from_secs(10))
            .with_check(CheckKind::Grpc)
            .with_check_path("svc")
            .with_check_tls(true)
            .with_deregister_critical_after(Duration::from_secs(2 * 60))
            .with_ttl(Duration::from_secs(7))
            .with_election_prefix("a/b")
            .with_lock_delay(Duration::from_secs(1))
            .with_connect_timeout(Duration::from_secs(1))
            .with_request_timeout(Duration::from_secs(2));
        assert_eq!(format!("{read:?}"), format!("{set:?}"));
        assert_eq!(read.token, set.token);

        for url in [
            "consul://h?token_file=/run/secret",
            "consul://?token_env=TOKEN",
            "consul://",
        ] {
            assert!(
                ConsulConfig::from_url(url).unwrap().checked().is_ok(),
                "{url}"
            );
        }
    }

    #[test]
    fn a_bad_url_is_refused_and_says_why() {
        for (url, why) in [
            ("etcd://h", "consul://"),
            ("consul://h/services", "folders"),
            ("consul://h?colour=red", "number 1 of the settings"),
            ("consul://h?tokn=hunter2", "write token"),
            ("consul://h?ttl=soon", "a duration"),
            (
                "consul://h?consistency=strong",
                "consistency: unknown variant",
            ),
            ("consul://h?check=ping", "check: unknown variant"),
            ("consul://:hunter2@h", "colon"),
            ("consul://hunter2@h?token=hunter3", "token"),
            ("consul://h?endpoints=i", "endpoints"),
        ] {
            let error = ConsulConfig::from_url(url)
                .and_then(ConsulConfig::checked)
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
            let report = error.report().to_string();
            assert!(
                report.contains(why) && !report.contains("hunter"),
                "{report}"
            );
        }
    }
}
