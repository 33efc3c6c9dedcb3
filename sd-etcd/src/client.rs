//! Requests to etcd and their answers. Knows nothing of discovery.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use etcd_client::{
    GetOptions, GetResponse, LeaseGrantOptions, ResponseHeader, Txn, TxnResponse, WatchOptions,
    WatchResponse, WatchStream,
};
use sd_core::{Error, ErrorKind, Result};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::config::EtcdConfig;
use crate::connection::{Connection, Connector, Unanswered};
use crate::error::{is_login_outdated, is_unreachable, translate};

/// One cluster, reached through one connection at a time. Does nothing until it is used.
pub(crate) struct Client {
    connector: Connector,
    closed: CancellationToken,
}

/// Whether a request may be sent a second time when its outcome is unknown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Harmless,
    Never,
}

/// A position in the history of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) cluster: u64,
    pub(crate) revision: i64,
}

impl Client {
    /// A client for a [checked](EtcdConfig::checked) configuration.
    pub(crate) fn new(config: EtcdConfig) -> Self {
        Self {
            connector: Connector::new(config),
            closed: CancellationToken::new(),
        }
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
                Error::new(ErrorKind::InvalidData, op).because("the granted ttl is negative")
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

    /// Opens a watch of `range` from now on; its first answer tells what "now" is.
    pub(crate) async fn watch(
        &self,
        op: &'static str,
        (key, end): (&str, &str),
    ) -> Result<(Connection, WatchStream, WatchResponse)> {
        self.call(op, Repeat::Harmless, |connection| async move {
            let options = WatchOptions::new().with_range(end).with_progress_notify();
            let mut stream = connection.watch().watch(key, Some(options)).await?;
            let created = stream.message().await?.ok_or_else(|| {
                etcd_client::Error::WatchError("the stream ended before the watch was made".into())
            })?;
            Ok((connection, stream, created))
        })
        .await
    }

    /// Uses `connection` for nothing new.
    pub(crate) fn retire(&self, connection: &Connection) {
        self.connector.retire(connection);
    }

    /// Answers every request from now on, also those under way, with `Closed`, and lets go of the connection.
    pub(crate) fn close(&self) {
        self.closed.cancel();
        self.connector.let_go();
    }

    /// Returns when the client is closed. Cancel-safe.
    pub(crate) async fn closed(&self) -> Error {
        self.closed.cancelled().await;
        closed("etcd: watch service")
    }

    async fn call<T, F, Fut>(&self, op: &'static str, repeat: Repeat, request: F) -> Result<T>
    where
        F: Fn(Connection) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        let limit = self.config().request_timeout;
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(closed(op)),
            done = timeout(limit, self.attempt(op, repeat, request)) => done.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Timeout, op).because(format!("no answer within {limit:?}")))
            }),
        }
    }

    async fn attempt<T, F, Fut>(&self, op: &'static str, repeat: Repeat, request: F) -> Result<T>
    where
        F: Fn(Connection) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut again = true;
        loop {
            let connection = self.connector.connection(op).await?;
            let unanswered = Unanswered::new(&self.connector, &connection);
            let answer = request(connection.clone()).await;
            unanswered.done();
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let relogin = self.config().user.is_some() && is_login_outdated(&error);
            let error = translate(op, error);
            let unreachable = is_unreachable(&error);
            if relogin || unreachable {
                debug!(error = %error.report(), "etcd connection given up");
                self.retire(&connection);
            }
            // A request that was turned away for its login was not carried out.
            again &= relogin || (unreachable && repeat == Repeat::Harmless);
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

/// Where an answer was given.
pub(crate) fn position(op: &'static str, header: Option<&ResponseHeader>) -> Result<Position> {
    let header = header.ok_or_else(|| {
        Error::new(ErrorKind::InvalidData, op).because("an answer without a header")
    })?;
    Ok(Position {
        cluster: header.cluster_id(),
        revision: header.revision(),
    })
}

fn closed(op: &'static str) -> Error {
    Error::new(ErrorKind::Closed, op).because("the registry was closed")
}
