//! Requests to etcd and their answers. Knows nothing of discovery.
//!
//! One connection serves everybody, to one endpoint. etcd-client's own balancing keeps offering endpoints that are dead, so
//! we choose: all endpoints are tried, each with a head start over the next, and the first that answers a read is kept
//! until a request fails on it or is given up. The next connection is then tried at another endpoint first, with files read
//! and login done anew.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{
    ConnectOptions, GetOptions, GetResponse, KvClient, LeaseClient, LeaseGrantOptions,
    ResponseHeader, Txn, TxnResponse, WatchClient, WatchOptions, WatchResponse, WatchStream,
};
use futures_util::stream::{FuturesUnordered, StreamExt};
use sd_core::{Error, ErrorKind, Result};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::config::EtcdConfig;
use crate::credentials::Credentials;
use crate::error::{is_login_needless, is_login_outdated, translate};

/// How long an endpoint is tried alone before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(200);
/// A request that was given up after this long counts against its connection; one given up sooner was not wanted any more.
const SUSPECT_AFTER: Duration = Duration::from_millis(300);
/// A page of records may be larger than the 4 MiB that tonic takes by default. etcd limits each record, we the page.
const MOST_BYTES: usize = 1 << 30;

/// One cluster, reached through one connection at a time. Does nothing until it is used.
pub(crate) struct Client {
    config: EtcdConfig,
    slot: Mutex<Arc<Slot>>,
    /// Which endpoint goes first.
    turn: AtomicUsize,
    closed: CancellationToken,
}

/// A connection, once somebody has needed it.
type Slot = OnceCell<Arc<etcd_client::Client>>;

/// The connection that a request went out on.
#[derive(Clone)]
pub(crate) struct Connection {
    slot: Arc<Slot>,
    etcd: Arc<etcd_client::Client>,
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
            // Processes that name the same members should not all crowd the first.
            turn: AtomicUsize::new(fastrand::usize(..)),
            config,
            slot: Mutex::default(),
            closed: CancellationToken::new(),
        }
    }

    pub(crate) fn config(&self) -> &EtcdConfig {
        &self.config
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
        let mut slot = lock(&self.slot);
        if Arc::ptr_eq(&slot, &connection.slot) {
            *slot = Arc::default();
            self.turn.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Answers every request from now on, also those under way, with `Closed`, and lets go of the connection.
    pub(crate) fn close(&self) {
        self.closed.cancel();
        *lock(&self.slot) = Arc::default();
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
        let limit = self.config.request_timeout;
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
            let connection = self.connection(op).await?;
            let unanswered = Unanswered::new(self, &connection);
            let answer = request(connection.clone()).await;
            unanswered.done();
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let relogin = self.config.user.is_some() && is_login_outdated(&error);
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

    async fn connection(&self, op: &'static str) -> Result<Connection> {
        let slot = Arc::clone(&lock(&self.slot));
        let etcd = slot
            .get_or_try_init(|| async { self.open(op).await.map(Arc::new) })
            .await?;
        let etcd = Arc::clone(etcd);
        Ok(Connection { slot, etcd })
    }

    /// Connects to the first endpoint that answers.
    async fn open(&self, op: &'static str) -> Result<etcd_client::Client> {
        let config = self.config.clone();
        let credentials = tokio::task::spawn_blocking(move || Credentials::read(&config))
            .await
            .map_err(|error| Error::new(ErrorKind::Unavailable, op).with_source(error))?
            // It was fine at the start, so it may be mended.
            .map_err(|error| Error::new(ErrorKind::Denied, op).with_source(error))?;
        let endpoints = &self.config.endpoints;
        let first = self.turn.load(Ordering::Relaxed) % endpoints.len().max(1);
        let mut waiting = endpoints.iter().cycle().skip(first).take(endpoints.len());
        let mut left = endpoints.len();
        let mut running = FuturesUnordered::new();
        let mut failed: Vec<String> = Vec::new();
        loop {
            if let Some(endpoint) = waiting.next() {
                running.push(self.open_endpoint(op, endpoint, &credentials));
                left -= 1;
            }
            tokio::select! {
                done = running.next() => match done {
                    Some(Ok(client)) => return Ok(client),
                    Some(Err((endpoint, error))) if is_unreachable(&error) => {
                        failed.push(format!("{endpoint}: {}", cause(&error)));
                    }
                    // The cluster answered, and the other members would say the same.
                    Some(Err((_, error))) => return Err(error),
                    None => {
                        return Err(Error::new(ErrorKind::Unavailable, op).because(failed.join("; ")));
                    }
                },
                () = sleep(HEAD_START), if left > 0 => {}
            }
        }
    }

    /// Connects to one endpoint, logs in, and proves with a read that it is part of a working cluster.
    async fn open_endpoint<'a>(
        &self,
        op: &'static str,
        endpoint: &'a str,
        credentials: &Credentials,
    ) -> Result<etcd_client::Client, (&'a str, Error)> {
        let connect = |options| etcd_client::Client::connect([endpoint], Some(options));
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.config.connect_timeout)
            .with_keep_alive(
                self.config.keep_alive_interval,
                self.config.keep_alive_timeout,
            )
            // etcd takes pings on a connection without any request for an attack and hangs up. A connection that died
            // idle is found out by the next request.
            .with_keep_alive_while_idle(false)
            // A member that is cut off from the others says so instead of being silent.
            .with_require_leader(true);
        if let Some(tls) = credentials.tls.clone() {
            options = options.with_tls(tls);
        }
        let connected = match &credentials.login {
            None => connect(options).await,
            Some((user, password)) => {
                match connect(options.clone().with_user(user, password.expose())).await {
                    Err(error) if is_login_needless(&error) => connect(options).await,
                    connected => connected,
                }
            }
        };
        let failed = |error| (endpoint, translate(op, error));
        let mut client = connected.map_err(failed)?;
        let probe = GetOptions::new().with_count_only();
        match client
            .get(self.config.prefix.as_str(), Some(probe))
            .await
            .map_err(failed)
        {
            Err((_, error)) if is_unreachable(&error) => Err((endpoint, error)),
            // Even a refusal is an answer.
            _ => Ok(client),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoints", &self.config.endpoints)
            .field("prefix", &self.config.prefix)
            .finish_non_exhaustive()
    }
}

impl Connection {
    fn kv(&self) -> KvClient {
        self.etcd.kv_client().max_decoding_message_size(MOST_BYTES)
    }

    fn lease(&self) -> LeaseClient {
        self.etcd.lease_client()
    }

    fn watch(&self) -> WatchClient {
        self.etcd
            .watch_client()
            .max_decoding_message_size(MOST_BYTES)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

/// Retires the connection of a request that was dropped before its answer came: core gives up sooner than our own limit, and
/// a server that does not answer must not be asked for ever.
struct Unanswered<'a> {
    client: &'a Client,
    connection: Option<&'a Connection>,
    since: Instant,
}

impl<'a> Unanswered<'a> {
    fn new(client: &'a Client, connection: &'a Connection) -> Self {
        Self {
            client,
            connection: Some(connection),
            since: Instant::now(),
        }
    }

    fn done(mut self) {
        self.connection = None;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection
            && self.since.elapsed() >= SUSPECT_AFTER
        {
            self.client.retire(connection);
        }
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

fn is_unreachable(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
}

fn cause(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn closed(op: &'static str) -> Error {
    Error::new(ErrorKind::Closed, op).because("the registry was closed")
}

/// What the lock guards is replaced as a whole, so that a panic elsewhere cannot leave it half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
