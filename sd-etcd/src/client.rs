//! Requests to etcd and their answers. Knows nothing of discovery.

pub(crate) mod addresses;
pub(crate) mod answer;
pub(crate) mod change_feed;
pub(crate) mod connection;
pub(crate) mod credentials;
pub(crate) mod error;
pub(crate) mod leases;
pub(crate) mod members;
pub(crate) mod range;
pub(crate) mod server_progress;
pub(crate) mod version;
pub(crate) mod watch_stream;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use etcd_client::{
    GetOptions, GetResponse, LeaseGrantOptions, LeaseTimeToLiveOptions, Txn, TxnResponse,
    WatchFilterType, WatchOptions, WatchResponse, WatchStream,
};
use futures_util::future::join_all;
use sd_backend::CloseSignal;
use sd_core::{Error, ErrorKind, Result};
use tokio::time::timeout;
use tracing::debug;

use crate::client::connection::{Connection, Connector};
use crate::client::error::{
    cancel_kind, caught, is_login_outdated, is_no_etcd, is_unreachable, stream_ended, translate,
};
use crate::client::watch_stream::Opened;
use crate::config::EtcdConfig;
use crate::config::rules::DEFAULT_KEEP_ALIVE_INTERVAL;

/// etcd hangs up on a connection that is pinged more often than every 5 s and has nothing else to say.
const SHORTEST_QUIET_INTERVAL: Duration = DEFAULT_KEEP_ALIVE_INTERVAL;

/// How long members may take to tell their version that nothing else is asked of.
const OTHERS_WITHIN: Duration = Duration::from_millis(500);

/// One cluster, reached through one connection at a time. Does nothing until it is used.
pub(crate) struct Client {
    connector: Connector,
    pub(crate) signal: CloseSignal,
}

/// Whether a request may be sent a second time when its outcome is unknown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Harmless,
    Never,
}

/// A lease, as the server tells of it.
#[derive(Debug)]
pub(crate) struct LeaseAtServer {
    /// The time-to-live that was granted.
    pub(crate) granted: Duration,
    /// The keys that hang on it.
    pub(crate) keys: Vec<Vec<u8>>,
}

/// What a member says when it is asked for its version.
#[derive(Debug)]
pub(crate) struct MemberVersion {
    pub(crate) endpoint: String,
    pub(crate) version: Result<String>,
}

impl Client {
    /// A client for a [checked](EtcdConfig::checked) configuration.
    pub(crate) fn new(config: EtcdConfig) -> Self {
        Self::on(CloseSignal::new(), config)
    }

    /// A client of the same cluster with a connection of its own, which may be quiet. The two are closed together.
    pub(crate) fn sibling(&self) -> Self {
        let mut config = self.config().clone();
        config.keep_alive_interval = config.keep_alive_interval.max(SHORTEST_QUIET_INTERVAL);
        Self::on(self.signal.clone(), config)
    }

    fn on(signal: CloseSignal, config: EtcdConfig) -> Self {
        let connector = Connector::new(config, &signal);
        Self { connector, signal }
    }

    pub(crate) fn config(&self) -> &EtcdConfig {
        self.connector.config()
    }

    /// Reads one key or a range. Linearizable.
    pub(crate) async fn get(
        &self,
        op: &'static str,
        key: &[u8],
        options: &GetOptions,
    ) -> Result<GetResponse> {
        self.call(op, Repeat::Harmless, |connection| async move {
            connection.kv().get(key, Some(options.clone())).await
        })
        .await
    }

    /// Runs a transaction, once.
    pub(crate) async fn txn(&self, op: &'static str, txn: &Txn) -> Result<TxnResponse> {
        self.call(op, Repeat::Never, |connection| async move {
            connection.kv().txn(txn.clone()).await
        })
        .await
    }

    /// Runs a transaction that does no more when it is run again, because it only reads for instance. Linearizable.
    pub(crate) async fn repeatable_txn(&self, op: &'static str, txn: &Txn) -> Result<TxnResponse> {
        self.call(op, Repeat::Harmless, |connection| async move {
            connection.kv().txn(txn.clone()).await
        })
        .await
    }

    /// Makes the lease `id`; returns the time-to-live that the server granted, which may be longer than what was asked for.
    pub(crate) async fn grant(&self, op: &'static str, id: i64, ttl: Duration) -> Result<Duration> {
        // etcd counts whole seconds.
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let granted = self
            .call(op, Repeat::Never, |connection| async move {
                let options = LeaseGrantOptions::new().with_id(id);
                connection.lease().grant(seconds, Some(options)).await
            })
            .await?;
        u64::try_from(granted.ttl())
            .map(Duration::from_secs)
            .map_err(|_| {
                Error::new(ErrorKind::InvalidData, op).because("the server granted a negative ttl")
            })
    }

    /// Restarts the time-to-live of a lease. `LeaseLost` if it is gone.
    ///
    /// Each time on a stream of its own: etcd-client does not mend a stream that broke, and this way there is none to mend.
    pub(crate) async fn keep_alive(&self, op: &'static str, id: i64) -> Result<()> {
        self.call(op, Repeat::Harmless, |connection| async move {
            connection.lease().keep_alive(id).await.map(drop)
        })
        .await
    }

    /// Ends a lease, and with it the keys that are attached to it. Fine if it is gone.
    pub(crate) async fn revoke(&self, op: &'static str, id: i64) -> Result<()> {
        let revoked = self
            .call(op, Repeat::Harmless, |connection| async move {
                connection.lease().revoke(id).await
            })
            .await;
        match revoked {
            Err(error) if error.kind() != ErrorKind::LeaseLost => Err(error),
            _ => Ok(()),
        }
    }

    /// What the server says of a lease; `None` if it is gone.
    pub(crate) async fn lease(&self, op: &'static str, id: i64) -> Result<Option<LeaseAtServer>> {
        self.call(op, Repeat::Harmless, |connection| async move {
            let with_keys = LeaseTimeToLiveOptions::new().with_keys();
            let mut leases = connection.lease();
            let told = leases.time_to_live(id, Some(with_keys)).await?;
            // One that is gone has been granted nothing.
            let granted = u64::try_from(told.granted_ttl()).unwrap_or_default();
            Ok((granted > 0).then(|| LeaseAtServer {
                granted: Duration::from_secs(granted),
                keys: told.keys().to_vec(),
            }))
        })
        .await
    }

    /// How many members the cluster has. If the server does not say, as many as there are endpoints.
    pub(crate) async fn members(&self, op: &'static str) -> usize {
        let listed = self.call(op, Repeat::Harmless, |connection| async move {
            Ok(connection.cluster().member_list().await?.members().len())
        });
        listed.await.unwrap_or(self.config().endpoints.len())
    }

    /// Which version each member runs, as far as the members tell.
    pub(crate) async fn versions(&self, op: &'static str) -> Result<Vec<MemberVersion>> {
        let asked = self
            .call(op, Repeat::Harmless, |connection| async move {
                let status = connection.maintenance().status().await?;
                let version = Ok(status.version().to_owned());
                let endpoint = connection.endpoint().to_owned();
                Ok(MemberVersion { endpoint, version })
            })
            .await;
        let endpoints = &self.config().endpoints;
        let first = match asked {
            Ok(told) => told,
            // The others would say the same.
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Rejected) => {
                let (endpoint, version) = (endpoints.join(", "), Err(error));
                return Ok(vec![MemberVersion { endpoint, version }]);
            }
            Err(error) => return Err(error),
        };
        let others = endpoints
            .iter()
            .filter(|endpoint| **endpoint != first.endpoint)
            .map(async |endpoint| {
                let asked = timeout(OTHERS_WITHIN, self.connector.version_at(op, endpoint)).await;
                let endpoint = endpoint.clone();
                let version = asked.unwrap_or_else(|_| Err(no_answer(op, OTHERS_WITHIN)));
                MemberVersion { endpoint, version }
            });
        let mut told = join_all(others).await;
        told.push(first);
        Ok(told)
    }

    /// Opens a watch of `range` from now on; its first answer tells what "now" is.
    pub(crate) async fn watch(
        &self,
        op: &'static str,
        range: (&str, &str),
    ) -> Result<(Connection, Opened)> {
        let (connection, opened) = self
            .call(op, Repeat::Harmless, |connection| async move {
                let opened = connection.watch_range(range).await?;
                Ok((connection, opened))
            })
            .await?;
        self.check_watch(op, &connection, &opened.0)?;
        Ok((connection, opened))
    }

    /// Watches for deletions of each of these keys or ranges, from now on, on one stream. Returns when all watches stand; a deletion that
    /// is told before that is dropped.
    pub(crate) async fn watch_deletions(
        &self,
        op: &'static str,
        keys: &[(&[u8], Option<&[u8]>)],
    ) -> Result<(Connection, WatchStream)> {
        let options = |end: Option<&[u8]>| {
            let options = WatchOptions::new().with_filters([WatchFilterType::NoPut]);
            match end {
                Some(end) => options.with_range(end),
                None => options,
            }
        };
        let (connection, stream, refusal) = self
            .call(op, Repeat::Harmless, |connection| async move {
                let ((first, end), others) = keys.split_first().ok_or_else(stream_ended)?;
                let mut stream = connection
                    .watch()
                    .watch(*first, Some(options(*end)))
                    .await?;
                for (key, end) in others {
                    stream.watch(*key, Some(options(*end))).await?;
                }
                let mut missing = keys.len();
                while missing > 0 {
                    let answer = stream.message().await?.ok_or_else(stream_ended)?;
                    if answer.canceled() {
                        return Ok((connection, stream, Some(answer)));
                    }
                    missing -= usize::from(answer.created());
                }
                Ok((connection, stream, None))
            })
            .await?;
        if let Some(refusal) = refusal {
            self.check_watch(op, &connection, &refusal)?;
        }
        Ok((connection, stream))
    }

    /// An error if the server cancelled the watch that answers.
    pub(crate) fn check_watch(
        &self,
        op: &'static str,
        connection: &Connection,
        answer: &WatchResponse,
    ) -> Result<()> {
        if !answer.canceled() {
            return Ok(());
        }
        if answer.compact_revision() > 0 {
            return Err(Error::new(ErrorKind::Outdated, op).because(format!(
                "the server has compacted all revisions before {}",
                answer.compact_revision()
            )));
        }
        // Perhaps the login is outdated: the next watch logs in again.
        self.retire(connection);
        let reason = answer.cancel_reason();
        Err(Error::new(cancel_kind(reason), op)
            .because(format!("the server cancelled the watch: {reason}")))
    }

    /// Uses `connection` for nothing new.
    pub(crate) fn retire(&self, connection: &Connection) {
        self.connector.retire(connection);
    }

    async fn call<T, F, Fut>(&self, op: &'static str, repeat: Repeat, request: F) -> Result<T>
    where
        F: Fn(Connection) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        let limit = self.config().request_timeout;
        let calling = async {
            let done = timeout(limit, self.attempt(op, repeat, request)).await;
            done.unwrap_or_else(|_| Err(no_answer(op, limit)))
        };
        self.signal.unless_closed(op, calling).await
    }

    async fn attempt<T, F, Fut>(&self, op: &'static str, repeat: Repeat, request: F) -> Result<T>
    where
        F: Fn(Connection) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut again = true;
        loop {
            let connection = self.connector.connection(op).await?;
            let unanswered = self.connector.unanswered(&connection);
            let answer = caught(request(connection.clone())).await;
            unanswered.answered();
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let relogin = self.config().user.is_some() && is_login_outdated(&error);
            let is_unread = relogin || is_no_etcd(&error);
            let error = translate(op, error);
            let unreachable = is_unreachable(&error);
            if is_unread || unreachable {
                debug!(error = %error.report(), "etcd connection given up");
                self.retire(&connection);
            }
            again &= is_unread || (unreachable && repeat == Repeat::Harmless);
            if !std::mem::take(&mut again) {
                return Err(error);
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoints", &self.config().endpoints)
            .field("prefix", &self.config().prefix)
            .finish_non_exhaustive()
    }
}

pub(crate) fn no_answer(op: &'static str, limit: Duration) -> Error {
    Error::new(ErrorKind::Timeout, op)
        .because(format!("the server did not answer within {limit:?}"))
}
