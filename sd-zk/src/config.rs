//! What the user may set: where ZooKeeper is, how to log in, how records are written.

pub(crate) mod access;
pub(crate) mod auth_scheme;
pub(crate) mod election_format;
pub(crate) mod format;
pub(crate) mod rules;
pub(crate) mod validation;

use std::path::PathBuf;
use std::time::Duration;

use sd_backend::{Secret, Servers, TlsSettings};
use sd_core::Result;
use serde::Deserialize;

use crate::config::access::Access;
use crate::config::auth_scheme::AuthScheme;
use crate::config::election_format::ElectionFormat;
use crate::config::format::Format;
use crate::config::rules::{
    DEFAULT_ELECTION_PREFIX, DEFAULT_EXHIBITOR_INTERVAL, DEFAULT_PREFIX, DEFAULT_REQUEST_TIMEOUT,
    DEFAULT_SESSION_TIMEOUT, RULES, URL_SCHEMES,
};

/// How to reach one ZooKeeper ensemble and how to write to it. [`connect`](crate::connect) validates it.
///
/// Serde and [`from_url`](Self::from_url) take the same keys. Unknown keys are refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ZkConfig {
    pub(crate) endpoints: Servers,
    pub(crate) follow_members: bool,
    pub(crate) exhibitors: Servers,
    #[serde(with = "humantime_serde")]
    pub(crate) exhibitor_interval: Duration,
    pub(crate) chroot: String,
    pub(crate) prefix: String,
    pub(crate) election_prefix: String,
    pub(crate) election_format: ElectionFormat,
    pub(crate) format: Format,
    pub(crate) payload_class: Option<String>,
    pub(crate) write_enabled: bool,
    pub(crate) access: Access,
    pub(crate) auth_scheme: AuthScheme,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) tls: Option<bool>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    #[serde(with = "humantime_serde")]
    pub(crate) session_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) request_timeout: Duration,
}

impl Default for ZkConfig {
    fn default() -> Self {
        Self {
            endpoints: Servers::default(),
            follow_members: false,
            exhibitors: Servers::default(),
            exhibitor_interval: DEFAULT_EXHIBITOR_INTERVAL,
            chroot: String::new(),
            prefix: DEFAULT_PREFIX.to_owned(),
            election_prefix: DEFAULT_ELECTION_PREFIX.to_owned(),
            election_format: ElectionFormat::default(),
            format: Format::default(),
            payload_class: None,
            write_enabled: false,
            access: Access::default(),
            auth_scheme: AuthScheme::default(),
            user: None,
            password: None,
            password_file: None,
            tls: None,
            ca: None,
            cert: None,
            key: None,
            session_timeout: DEFAULT_SESSION_TIMEOUT,
            request_timeout: DEFAULT_REQUEST_TIMEOUT,
        }
    }
}

impl ZkConfig {
    /// An ensemble at these endpoints, `host:port` each. Name all members: one that answers is enough.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().collect(),
            ..Self::default()
        }
    }

    /// An ensemble from a URL that holds all settings:
    ///
    /// ```text
    /// zk://user:password@h1:2181,h2:2181/chroot?prefix=/services&session_timeout=10s
    /// ```
    ///
    /// The part before the `?` sets `endpoints`, `user`, `password` and `chroot`; the keys after the `?` are those of serde.
    /// `zks://` is `zk://` with `tls=true`. The hosts of `zk+exhibitor://` are `exhibitors` in place of `endpoints`.
    ///
    /// # Errors
    /// `InvalidInput` names the part that is wrong or the key that is unknown.
    pub fn from_url(url: &str) -> Result<Self> {
        let url = RULES.url(url, &URL_SCHEMES)?;
        let mut config: Self = url.settings()?;
        let [_, with_tls, by_exhibitor] = URL_SCHEMES.map(|scheme| url.scheme() == scheme);
        let password = url.password().map(Secret::new);
        let chroot = Some(url.path()).filter(|path| path.len() > 1);
        if chroot.is_some_and(|chroot| chroot.contains(',')) {
            let rule =
                "in a URL, name it once and behind all endpoints; one that has a comma, as chroot=";
            return Err(RULES.broken("chroot", rule));
        }
        let (hosts_key, hosts) = if by_exhibitor {
            ("exhibitors", &mut config.exhibitors)
        } else {
            ("endpoints", &mut config.endpoints)
        };
        RULES.given_once(&[
            (hosts_key, !hosts.is_empty()),
            ("user", url.username().is_some() && config.user.is_some()),
            ("password", password.is_some() && config.password.is_some()),
            ("chroot", chroot.is_some() && !config.chroot.is_empty()),
        ])?;
        RULES.tls_scheme(with_tls, &mut config.tls)?;
        if url.hosts().is_empty() {
            return Err(RULES.broken(hosts_key, "name at least one host before the / of the URL"));
        }
        *hosts = url.hosts().iter().collect();
        config.user = config.user.or(url.username().map(str::to_owned));
        config.password = config.password.or(password);
        if let Some(chroot) = chroot {
            chroot.clone_into(&mut config.chroot);
        }
        Ok(config)
    }

    /// An ensemble whose servers these Exhibitors tell, `host:port` each, of which one that answers is enough. They are asked in this
    /// order, over HTTP without TLS. Needs the feature `exhibitor`. Default: none.
    ///
    /// [`new`](Self::new) may name servers as well: they are used where no Exhibitor has ever answered.
    #[must_use]
    pub fn with_exhibitors(
        mut self,
        exhibitors: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.exhibitors = exhibitors.into_iter().collect();
        self
    }

    sd_backend::setters! {
        /// Sets how often an Exhibitor is asked for the servers while there is a session, 1 s to 1 h. One is also asked whenever no server
        /// can be reached. Default: [`DEFAULT_EXHIBITOR_INTERVAL`].
        with_exhibitor_interval(exhibitor_interval: Duration);

        /// Follows the configuration that the ensemble keeps in `/zookeeper/config`, and tries the client addresses of its members before
        /// those that are named here. So all servers that are named may be replaced by a dynamic reconfiguration. The addresses must be
        /// reachable from here. With TLS they must answer to it, as with `client.portUnification`: ZooKeeper tells no ports of TLS.
        /// Default: false.
        with_follow_members(follow_members: bool);

        /// Keeps everything below this node, which must exist. All other paths are seen from there. Default: the root.
        with_chroot(chroot: into String);

        /// Keeps records below this path: `<prefix>/<service>/<id>`. It is what Curator calls the base path. Slashes at its end are
        /// dropped. Default: [`DEFAULT_PREFIX`].
        with_prefix(prefix: into String);

        /// Keeps elections below this path. Neither this path nor that of records may lie inside the other. Slashes at its end are dropped.
        /// Default: [`DEFAULT_ELECTION_PREFIX`].
        with_election_prefix(election_prefix: into String);

        /// Sets whose elections are joined. Default: [`ElectionFormat::Curator`].
        with_election_format(election_format: ElectionFormat);

        /// Sets how records are written. Default: [`Format::Curator`].
        with_format(format: Format);

        /// Names the Java class that Curator's readers make of the payload: it is written as `@class`. Without it, their payload type must
        /// be `Object` or `Map`.
        with_payload_class(payload_class: some into String);

        /// Writes Curator's field `enabled`, which says whether the instance is ready: Curator's providers then leave out those that are
        /// not. Versions of Curator before 2.11 cannot read records with this field. Default: false, as in Curator.
        with_write_enabled(write_enabled: bool);

        /// Sets who may read and change the nodes that we make. Default: [`Access::Open`].
        with_access(access: Access);

        /// Sets how user and password are shown to the server. Default: [`AuthScheme::Digest`].
        with_auth_scheme(auth_scheme: AuthScheme);
    }

    sd_backend::login_setters!();

    sd_backend::setters! {
        /// Uses TLS, which needs [`with_ca`](Self::with_ca). Default: only if another TLS setting is set.
        with_tls(tls: some bool);

        /// Trusts only servers whose certificate was issued by an authority in this PEM file. Certificates must be for the host of the
        /// endpoint. The file is read for each session, and again when its connection was lost.
        with_ca(ca: some into PathBuf);
    }

    /// Presents this client certificate (chain) and its key to servers, both PEM files. They are read for each session, and again when
    /// its connection was lost.
    #[must_use]
    pub fn with_identity(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.cert = Some(cert.into());
        self.key = Some(key.into());
        self
    }

    sd_backend::setters! {
        /// Sets for how long ZooKeeper keeps a session without a sign of life, and with it all records of this registry: 1 s to 24 h. The
        /// server may grant another time-out, which then applies: by default between 2 and 20 of its ticks. It is the time-to-live of every
        /// registration, since they share the session. Default: [`DEFAULT_SESSION_TIMEOUT`].
        with_session_timeout(session_timeout: Duration);

        /// Limits how long to wait for a session, for its connection and for the answer to one request, each 100 ms to 1 min. Default:
        /// [`DEFAULT_REQUEST_TIMEOUT`].
        with_request_timeout(request_timeout: Duration);
    }

    /// What is said of TLS.
    pub(crate) fn tls(&self) -> TlsSettings<'_> {
        TlsSettings {
            tls: self.tls,
            ca: self.ca.as_deref(),
            cert: self.cert.as_deref(),
            key: self.key.as_deref(),
            ..TlsSettings::default()
        }
    }

    pub(crate) fn speaks_tls(&self) -> bool {
        self.tls().wanted() == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    #[test]
    fn a_password_shows_nowhere() {
        let config = ZkConfig::new(["u:hunter2@h:1"]).with_user("u", "hunter2");
        assert!(!format!("{config:?}").contains("hunter2"));
        let refused = config.checked().unwrap_err().report().to_string();
        assert!(!refused.contains("hunter2"));
    }

    #[test]
    fn a_url_says_the_same_as_the_setters() {
        let url = "zk://u:p%40ss@h1:1,h2/a/b?prefix=/s&election_prefix=/e&session_timeout=7s&format=gokit&tls=true&ca=/ca\
                   &cert=/cert&key=/key&request_timeout=1s&access=read_only&payload_class=a.B&write_enabled=true\
                   &follow_members=true&auth_scheme=sasl&election_format=reception";
        let read = ZkConfig::from_url(url).unwrap();
        let set = ZkConfig::new(["h1:1", "h2"])
            .with_chroot("/a/b")
            .with_prefix("/s")
            .with_election_prefix("/e")
            .with_user("u", "p@ss")
            .with_session_timeout(Duration::from_secs(7))
            .with_request_timeout(Duration::from_secs(1))
            .with_format(Format::GoKit)
            .with_payload_class("a.B")
            .with_write_enabled(true)
            .with_access(Access::ReadOnly)
            .with_follow_members(true)
            .with_election_format(ElectionFormat::Reception)
            .with_auth_scheme(AuthScheme::Sasl)
            .with_tls(true)
            .with_ca("/ca")
            .with_identity("/cert", "/key");
        assert_eq!(format!("{read:?}"), format!("{set:?}"));
        assert_eq!(read.password, set.password);

        let with_file = ZkConfig::from_url("zks://u@h?password_file=/run/secret&ca=/ca").unwrap();
        assert!(with_file.clone().checked().is_ok());
        assert!(with_file.speaks_tls());

        let url = "zk+exhibitor://e1,e2:1/a?exhibitor_interval=5s&endpoints=h1&tls=true&ca=/ca";
        let told = ZkConfig::from_url(url).unwrap();
        let set = ZkConfig::new(["h1"])
            .with_exhibitors(["e1", "e2:1"])
            .with_exhibitor_interval(Duration::from_secs(5))
            .with_chroot("/a")
            .with_tls(true)
            .with_ca("/ca");
        assert_eq!(format!("{told:?}"), format!("{set:?}"));
    }

    #[test]
    fn a_bad_url_is_refused_and_says_why() {
        for (url, why) in [
            ("etcd://h", "zks://"),
            ("zks://h?tls=false", "tls"),
            ("zks://h", "ca"),
            ("zk://:hunter2@h", "needs a user"),
            ("zk:///chroot", "endpoints"),
            ("zk://h/a/../b", "chroot"),
            ("zk://h?colour=red", "number 1 of the settings"),
            ("zk://h?session_timeout=soon", "a duration"),
            ("zk://h?format=xml", "format: unknown variant"),
            ("zk://u:p@h?user=v", "user"),
            ("zk://u:hunter2@h?password=hunter3", "password"),
            ("zk://h/a?chroot=/b", "chroot"),
            ("zk://h?endpoints=i", "endpoints"),
            ("zk+exhibitor://h?exhibitors=i", "exhibitors"),
            ("zk+exhibitor:///chroot?endpoints=h", "exhibitors"),
            ("zk://u:p@h?auth_scheme=kerberos", "auth_scheme"),
        ] {
            let error = ZkConfig::from_url(url)
                .and_then(ZkConfig::checked)
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
            let report = error.report().to_string();
            assert!(report.contains(why), "{url}: {report}");
            assert!(!report.contains("hunter"), "{report}");
        }
    }

    #[test]
    fn serde_takes_the_keys_and_refuses_unknown_ones() {
        let config: ZkConfig = serde_json::from_str(
            r#"{"endpoints":["h"],"format":"reception","session_timeout":"1s"}"#,
        )
        .unwrap();
        assert_eq!(config.format, Format::Reception);
        assert_eq!(config.session_timeout, Duration::from_secs(1));
        let error = serde_json::from_str::<ZkConfig>(r#"{"endpoint":"h"}"#).unwrap_err();
        assert!(error.to_string().contains("endpoint"), "{error}");
    }
}
