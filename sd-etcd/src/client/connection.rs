//! One connection to one of several endpoints.
//!
//! etcd-client's own balancing keeps offering endpoints that are dead, so we choose: all endpoints are tried, each with a head
//! start over the next, and the first that answers a read is kept until a request fails on it or is given up. The next
//! connection is then tried at another endpoint first, with the files read and the login done again.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::{
    Channel, ClusterClient, ConnectOptions, GetOptions, KvClient, LeaseClient, MaintenanceClient,
    TlsOptions, WatchClient,
};
use futures_util::stream::{FuturesUnordered, StreamExt};
use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, Result};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Endpoint, Uri};

use crate::client::credentials::Credentials;
use crate::client::error::{caught, is_login_needless, is_unreachable, translate};
use crate::config::EtcdConfig;

/// How long an endpoint is tried alone before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(200);
/// A request that was given up after this long counts against its connection; one given up sooner was not wanted any more.
const SUSPECT_AFTER: Duration = Duration::from_millis(300);
/// A page of records may be larger than the 4 MiB that tonic takes by default. etcd limits each record, we the page.
const MOST_BYTES: usize = 1 << 30;

/// Makes the connection that all requests share, when it is needed.
pub(crate) struct Connector {
    config: EtcdConfig,
    slot: Mutex<Arc<Slot>>,
    /// Which endpoint goes first.
    turn: AtomicUsize,
}

/// A connection, once it was needed.
#[derive(Default)]
struct Slot {
    member: OnceCell<Arc<Member>>,
    retired: CancellationToken,
}

/// The connection that a request went out on.
#[derive(Clone)]
pub(crate) struct Connection {
    slot: Arc<Slot>,
    member: Arc<Member>,
}

/// An endpoint that was connected to.
struct Member {
    endpoint: String,
    etcd: etcd_client::Client,
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
            std::mem::take(&mut *slot).retired.cancel();
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
        let member = slot
            .member
            .get_or_try_init(|| async { self.open(op).await.map(Arc::new) })
            .await?;
        let member = Arc::clone(member);
        Ok(Connection { slot, member })
    }

    /// The version that the member at one of the endpoints runs, asked for on a connection of its own.
    pub(crate) async fn version_at(&self, op: &'static str, endpoint: &str) -> Result<String> {
        let credentials = self.credentials(op).await?;
        let opened = self.open_endpoint(op, endpoint, &credentials).await;
        let mut etcd = opened.map_err(|(_, error)| error)?.etcd;
        let asked = caught(etcd.status()).await;
        let status = asked.map_err(|error| translate(op, error))?;
        Ok(status.version().to_owned())
    }

    /// Reads the files as they are now.
    async fn credentials(&self, op: &'static str) -> Result<Credentials> {
        let config = self.config.clone();
        off_runtime(op, move || Credentials::read(&config))
            .await?
            // It was fine at the start, so it may be mended.
            .map_err(|error| Error::new(ErrorKind::Denied, op).with_source(error))
    }

    /// Connects to the first endpoint that answers.
    async fn open(&self, op: &'static str) -> Result<Member> {
        let credentials = self.credentials(op).await?;
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
                    Some(Ok(member)) => return Ok(member),
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
    ) -> Result<Member, (&'a str, Error)> {
        let failed = |error| (endpoint, translate(op, error));
        let (config, url, tls) = (
            self.config.clone(),
            endpoint.to_owned(),
            credentials.tls.clone(),
        );
        let prepared = off_runtime(op, move || prepare(&config, &url, tls))
            .await
            .map_err(|error| (endpoint, error))?
            .map_err(failed)?;
        let connect = |options| {
            let channel = Channel::Tonic(prepared.connect_lazy());
            caught(etcd_client::Client::from_channel(channel, Some(options)))
        };
        // A member that is cut off from the others says so instead of being silent.
        let options = ConnectOptions::new().with_require_leader(true);
        let connected = match &credentials.login {
            None => connect(options).await,
            Some((user, password)) => {
                match connect(options.clone().with_user(user, password.expose())).await {
                    Err(error) if is_login_needless(&error) => connect(options).await,
                    connected => connected,
                }
            }
        };
        let mut etcd = connected.map_err(failed)?;
        let probe = GetOptions::new().with_count_only();
        match caught(etcd.get(self.config.prefix.as_str(), Some(probe)))
            .await
            .map_err(failed)
        {
            Err((_, error)) if is_unreachable(&error) => Err((endpoint, error)),
            // Even a refusal is an answer.
            _ => Ok(Member {
                endpoint: endpoint.to_owned(),
                etcd,
            }),
        }
    }
}

impl Connection {
    /// Returns when it is used for nothing new any more, perhaps because it is dead. Cancel-safe.
    pub(crate) async fn retired(&self) {
        self.slot.retired.cancelled().await;
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.slot.retired.is_cancelled()
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.member.endpoint
    }

    pub(crate) fn cluster(&self) -> ClusterClient {
        self.member.etcd.cluster_client()
    }

    pub(crate) fn maintenance(&self) -> MaintenanceClient {
        self.member.etcd.maintenance_client()
    }

    pub(crate) fn kv(&self) -> KvClient {
        self.member
            .etcd
            .kv_client()
            .max_decoding_message_size(MOST_BYTES)
    }

    pub(crate) fn lease(&self) -> LeaseClient {
        self.member.etcd.lease_client()
    }

    pub(crate) fn watch(&self) -> WatchClient {
        self.member
            .etcd
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

/// What it takes to connect to one endpoint. Blocks: for TLS, the issuers that the operating system trusts are read from its files.
fn prepare(
    config: &EtcdConfig,
    url: &str,
    tls: Option<TlsOptions>,
) -> Result<Endpoint, etcd_client::Error> {
    let endpoint = Endpoint::from(url.parse::<Uri>()?)
        .connect_timeout(config.connect_timeout)
        .http2_keep_alive_interval(config.keep_alive_interval)
        .keep_alive_timeout(config.keep_alive_timeout)
        // etcd takes pings on a connection without any request for an attack and hangs up. A connection that died idle is found
        // out by the next request.
        .keep_alive_while_idle(false);
    match tls {
        None => Ok(endpoint),
        Some(tls) => Ok(endpoint.tls_config(tls)?),
    }
}

/// Does what blocks where no task waits for the thread.
async fn off_runtime<T: Send + 'static>(
    op: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::new(ErrorKind::Unavailable, op).with_source(error))
}

fn cause(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc;

    use tokio::time::timeout;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(10);

    /// A pipe is a file that cannot be read before it is written.
    #[tokio::test]
    async fn files_are_read_off_the_runtime_and_without_a_lock() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("password");
        let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let config = EtcdConfig::new(["127.0.0.1:1"]).with_password_file("u", &pipe);
        let connector = Connector::new(config.checked().unwrap());
        let (write, told) = mpsc::channel::<()>();
        let writer = std::thread::spawn(move || {
            // Also if it is never told: then the runtime waits for us.
            let _ = told.recv_timeout(LONG);
            std::fs::write(pipe, "password").unwrap();
        });

        let connecting = connector.connection("test");
        tokio::pin!(connecting);
        assert!(timeout(MOMENT, &mut connecting).await.is_err());
        assert!(connector.slot.try_lock().is_ok());
        write.send(()).unwrap();
        let error = connecting.await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
        writer.join().unwrap();
    }
}
