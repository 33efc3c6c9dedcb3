//! One connection to one of several endpoints.
//!
//! etcd-client's own balancing keeps offering endpoints that are dead, so we choose: all endpoints are tried, each with a head
//! start over the next, and the first that answers a read is kept until a request fails on it or is given up. The next
//! connection is then tried at another endpoint first, with files read and login done anew.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{ConnectOptions, GetOptions, KvClient, LeaseClient, WatchClient};
use futures_util::stream::{FuturesUnordered, StreamExt};
use sd_core::{Error, ErrorKind, Result};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::config::EtcdConfig;
use crate::credentials::Credentials;
use crate::error::{is_login_needless, is_unreachable, translate};

/// How long an endpoint is tried alone before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(200);
/// A request that was given up after this long counts against its connection; one given up sooner was not wanted any more.
const SUSPECT_AFTER: Duration = Duration::from_millis(300);
/// A page of records may be larger than the 4 MiB that tonic takes by default. etcd limits each record, we the page.
const MOST_BYTES: usize = 1 << 30;

/// Makes the connection that everybody shares, when it is needed.
pub(crate) struct Connector {
    config: EtcdConfig,
    slot: Mutex<Arc<Slot>>,
    /// Which endpoint goes first.
    turn: AtomicUsize,
}

/// A connection, once somebody has needed it.
type Slot = OnceCell<Arc<etcd_client::Client>>;

/// The connection that a request went out on.
#[derive(Clone)]
pub(crate) struct Connection {
    slot: Arc<Slot>,
    etcd: Arc<etcd_client::Client>,
}

impl Connector {
    /// For a [checked](EtcdConfig::checked) configuration.
    pub(crate) fn new(config: EtcdConfig) -> Self {
        Self {
            // Processes that name the same members should not all crowd the first.
            turn: AtomicUsize::new(fastrand::usize(..)),
            config,
            slot: Mutex::default(),
        }
    }

    pub(crate) fn config(&self) -> &EtcdConfig {
        &self.config
    }

    /// Uses `connection` for nothing new.
    pub(crate) fn retire(&self, connection: &Connection) {
        let mut slot = lock(&self.slot);
        if Arc::ptr_eq(&slot, &connection.slot) {
            *slot = Arc::default();
            self.turn.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lets go of the connection.
    pub(crate) fn let_go(&self) {
        *lock(&self.slot) = Arc::default();
    }

    /// The connection to use now; connects if there is none.
    pub(crate) async fn connection(&self, op: &'static str) -> Result<Connection> {
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

impl Connection {
    pub(crate) fn kv(&self) -> KvClient {
        self.etcd.kv_client().max_decoding_message_size(MOST_BYTES)
    }

    pub(crate) fn lease(&self) -> LeaseClient {
        self.etcd.lease_client()
    }

    pub(crate) fn watch(&self) -> WatchClient {
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
pub(crate) struct Unanswered<'a> {
    connector: &'a Connector,
    connection: Option<&'a Connection>,
    since: Instant,
}

impl<'a> Unanswered<'a> {
    pub(crate) fn new(connector: &'a Connector, connection: &'a Connection) -> Self {
        Self {
            connector,
            connection: Some(connection),
            since: Instant::now(),
        }
    }

    pub(crate) fn done(mut self) {
        self.connection = None;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection
            && self.since.elapsed() >= SUSPECT_AFTER
        {
            self.connector.retire(connection);
        }
    }
}

fn cause(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// What the lock guards is replaced as a whole, so that a panic elsewhere cannot leave it half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
