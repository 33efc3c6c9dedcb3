//! One connection to one of several endpoints.
//!
//! etcd-client's own balancing keeps offering endpoints that are dead, so we choose: all endpoints are tried, each with a head
//! start over the next, and so are all addresses of an endpoint that is a name. The first that answers a read is kept until a
//! request fails on it or is given up. The next connection is then tried at another endpoint first, with names looked up, the files
//! read and the login done again.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Channel, ClusterClient, ConnectOptions, GetOptions, GetResponse, KvClient, LeaseClient,
    MaintenanceClient, ResponseHeader, TlsOptions, WatchClient,
};
use futures_util::stream::{FuturesUnordered, StreamExt};
use sd_backend::{
    CloseSignal, FileThread, SharedConnection, Unanswered, is_other_server, other_server,
};
use sd_core::{Error, ErrorKind, Result};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Endpoint, Uri};

use crate::client::addresses::{Addresses, Reached};
use crate::client::credentials::Credentials;
use crate::client::error::{EXPECTED, caught, is_login_needless, translate};
use crate::client::members::{Candidate, Members};
use crate::client::server_progress::ServerProgress;
use crate::client::watch_stream::{Opened, Watches};
use crate::config::EtcdConfig;
use crate::config::rules::FILES;

/// How long an endpoint is tried alone before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(200);
/// After how many intervals of keep-alives the members are asked for again.
const MEMBERS_EVERY: u32 = 5;
/// A request that was given up after this long counts against its connection; one given up sooner was not wanted any more.
const SUSPECT_AFTER: Duration = Duration::from_millis(300);
/// A page of records may be larger than the 4 MiB that tonic takes by default. etcd limits each record, we the page.
const MOST_BYTES: usize = 1 << 30;

/// Makes the connection that all requests share, when it is needed.
pub(crate) struct Connector {
    config: EtcdConfig,
    shared: SharedConnection<Member>,
    /// Which endpoint goes first at first.
    first: usize,
    files: FileThread,
    addresses: Addresses,
    members: Arc<Members>,
}

/// The connection that a request went out on.
pub(crate) type Connection = sd_backend::Connection<Member>;

/// An endpoint that was connected to.
pub(crate) struct Member {
    endpoint: String,
    etcd: etcd_client::Client,
    progress: Arc<ServerProgress>,
    watches: Watches,
    /// Ends with the connection.
    _following: Option<AbortOnDropHandle<()>>,
}

/// Why an attempt to connect came to nothing.
enum Failed {
    /// Another endpoint may do better. Says which one it was.
    Unreachable(String),
    /// It refuses what any etcd answers. Another endpoint may do better. Says which one it was.
    NoEtcd(Error, String),
    /// The cluster answered, and the other members would say the same.
    Refused(Error),
}

impl Connector {
    /// For a [checked](EtcdConfig::checked) configuration.
    pub(crate) fn new(config: EtcdConfig, signal: &CloseSignal) -> Self {
        Self {
            config,
            shared: SharedConnection::new(signal),
            // Processes that name the same members should not all crowd the first.
            first: fastrand::usize(..),
            files: FileThread::default(),
            addresses: Addresses::of_system(),
            members: Arc::default(),
        }
    }

    pub(crate) fn config(&self) -> &EtcdConfig {
        &self.config
    }

    /// Uses `connection` for nothing new.
    pub(crate) fn retire(&self, connection: &Connection) {
        self.shared.retire(connection);
    }

    /// A request goes out on `connection` now.
    pub(crate) fn unanswered<'a>(&'a self, connection: &'a Connection) -> Unanswered<'a, Member> {
        Unanswered::new(&self.shared, connection, SUSPECT_AFTER)
    }

    /// The connection to use now; connects if there is none.
    pub(crate) async fn connection(&self, op: &'static str) -> Result<Connection> {
        self.shared.get_or_connect(self.open(op)).await
    }

    /// The version that the member at one of the endpoints runs, asked for on a connection of its own.
    pub(crate) async fn version_at(&self, op: &'static str, endpoint: &str) -> Result<String> {
        let credentials = self.credentials(op).await?;
        let candidate = Candidate {
            url: endpoint.to_owned(),
            cluster: None,
        };
        let opened = self.open_endpoint(op, &candidate, &credentials).await;
        let mut etcd = opened.map_err(|failed| failed.into_error(op))?;
        let asked = caught(etcd.status()).await;
        let status = asked.map_err(|error| translate(op, error))?;
        Ok(status.version().to_owned())
    }

    /// Reads the files as they are now.
    async fn credentials(&self, op: &'static str) -> Result<Credentials> {
        let (config, limit) = (self.config.clone(), self.config.request_timeout);
        let reading = move || Credentials::read(&config);
        self.files.read_again(op, FILES, limit, reading).await
    }

    /// Connects to the first endpoint that answers.
    async fn open(&self, op: &'static str) -> Result<Member> {
        let credentials = self.credentials(op).await?;
        let mut candidates = self.members.beside(&self.config.endpoints);
        // Of what is named each comes first in turn. What is learnt may not be reachable, and comes last.
        let named = candidates.partition_point(|candidate| candidate.cluster.is_none());
        if let Some(named) = candidates
            .get_mut(..named)
            .filter(|named| !named.is_empty())
        {
            let turn = self.first.wrapping_add(self.shared.retirements());
            named.rotate_left(turn % named.len());
        }
        let attempts = candidates.iter().map(|candidate| {
            let opening = self.open_endpoint(op, candidate, &credentials);
            async move { opening.await.map(|etcd| (candidate.url.clone(), etcd)) }
        });
        let (endpoint, etcd) = race(attempts.collect())
            .await
            .map_err(|failed| failed.into_error(op))?;
        let following = self.config.follow_members.then(|| {
            let every = self.config.keep_alive_interval * MEMBERS_EVERY;
            let is_tls = self.config.endpoints.speak_tls();
            self.members.follow(etcd.cluster_client(), is_tls, every)
        });
        let progress = Arc::new(ServerProgress::new(
            endpoint.clone(),
            self.config.keep_alive_interval,
            self.config.keep_alive_timeout,
        ));
        Ok(Member {
            endpoint,
            etcd,
            watches: Watches::new(Arc::clone(&progress)),
            progress,
            _following: following,
        })
    }

    /// Connects to one endpoint, at the first of its addresses that answers.
    async fn open_endpoint(
        &self,
        op: &'static str,
        candidate: &Candidate,
        credentials: &Credentials,
    ) -> Result<etcd_client::Client, Failed> {
        let broken =
            |error: &dyn fmt::Display| Failed::Unreachable(format!("{}: {error}", candidate.url));
        let url: Uri = candidate.url.parse().map_err(|error| broken(&error))?;
        let addresses = self.addresses.of(&url, self.config.connect_timeout).await;
        let addresses = addresses.map_err(|why| broken(&why))?;
        let attempts = addresses
            .iter()
            .map(|reached| self.open_address(op, candidate, reached, credentials));
        race(attempts.collect()).await
    }

    /// Connects to one address, logs in, and proves with a read that it is part of a working cluster.
    async fn open_address(
        &self,
        op: &'static str,
        candidate: &Candidate,
        reached: &Reached,
        credentials: &Credentials,
    ) -> Result<etcd_client::Client, Failed> {
        let failed = |error: Error| Failed::new(candidate, reached, error);
        let (config, reached_at, tls) = (
            self.config.clone(),
            reached.clone(),
            credentials.tls.clone(),
        );
        let url = candidate.url.clone();
        let prepared = self
            .files
            .run(op, move || prepare(&config, &url, &reached_at, tls))
            .await
            .and_then(|prepared| prepared.map_err(|error| translate(op, error)))
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
        let mut etcd = connected.map_err(|error| failed(translate(op, error)))?;
        let probe = GetOptions::new().with_count_only();
        let probed = caught(etcd.get(self.config.prefix.as_str(), Some(probe))).await;
        let probed = probed.map_err(|error| translate(op, error));
        if let Some(cluster) = candidate.cluster {
            let header = probed.as_ref().ok().and_then(GetResponse::header);
            let told = header.map(ResponseHeader::cluster_id);
            check_cluster(op, &mut etcd, told, cluster)
                .await
                .map_err(failed)?;
        }
        match probed.map_err(|error| (error.kind(), error)) {
            // A refusal is an answer, too.
            Ok(_) | Err((ErrorKind::Denied | ErrorKind::RateLimited { .. }, _)) => Ok(etcd),
            // What knows no such request is no etcd, and perhaps what has an address now that a member had.
            Err((_, error)) => Err(failed(error)),
        }
    }
}

/// Proves that a server is of this cluster, given what it `told` when it was read.
async fn check_cluster(
    op: &'static str,
    etcd: &mut etcd_client::Client,
    told: Option<u64>,
    cluster: u64,
) -> Result<()> {
    let mut told = told;
    if told.is_none() {
        // Without the right to read, the list of members says it.
        let listed = caught(etcd.member_list()).await;
        let listed = listed.map_err(|error| translate(op, error))?;
        told = listed.header().map(ResponseHeader::cluster_id);
    }
    if told != Some(cluster) {
        return Err(Error::new(ErrorKind::Unavailable, op)
            .because("it was named as a member of the cluster, and answers for another one"));
    }
    Ok(())
}

impl Failed {
    /// What was only learnt of may be anything, so that its refusal says nothing of the cluster.
    fn new(candidate: &Candidate, reached: &Reached, error: Error) -> Self {
        let is_refusal = matches!(error.kind(), ErrorKind::Denied | ErrorKind::InvalidInput);
        if is_refusal && candidate.cluster.is_none() {
            return Self::Refused(error);
        }
        let (endpoint, why) = (&candidate.url, cause(&error));
        let said = match reached.url.authority() {
            Some(address) if reached.name.is_some() => format!("{endpoint} at {address}: {why}"),
            _ => format!("{endpoint}: {why}"),
        };
        if error.kind() == ErrorKind::Rejected {
            Self::NoEtcd(error, said)
        } else {
            Self::Unreachable(said)
        }
    }

    fn into_error(self, op: &'static str) -> Error {
        match self {
            Self::Unreachable(why) => Error::new(ErrorKind::Unavailable, op).because(why),
            Self::NoEtcd(error, said) if is_other_server(&error) => {
                Error::new(error.kind(), op).with_source(other_server(EXPECTED, said))
            }
            Self::NoEtcd(error, said) => Error::new(error.kind(), op).because(said),
            Self::Refused(error) => error,
        }
    }
}

/// Starts the attempts in their order, each when one before it has failed or had its head start. Returns the first that succeeds or
/// is refused; if none is, what all of them say.
async fn race<T, F>(attempts: Vec<F>) -> Result<T, Failed>
where
    F: Future<Output = Result<T, Failed>>,
{
    let mut attempts = attempts.into_iter();
    let mut running = FuturesUnordered::new();
    let mut failed: Vec<String> = Vec::new();
    let mut rejected: Vec<Error> = Vec::new();
    loop {
        running.extend(attempts.next());
        tokio::select! {
            done = running.next() => match done {
                Some(Err(Failed::Unreachable(why))) => failed.push(why),
                Some(Err(Failed::NoEtcd(error, why))) => {
                    rejected.push(error);
                    failed.push(why);
                }
                Some(done) => return done,
                // Where nothing but refusals came, one of them says what to do.
                None if rejected.len() == failed.len() && !rejected.is_empty() => {
                    let error = rejected.swap_remove(0);
                    return Err(Failed::NoEtcd(error, failed.join("; ")));
                }
                None => return Err(Failed::Unreachable(failed.join("; "))),
            },
            () = sleep(HEAD_START), if attempts.len() > 0 => {}
        }
    }
}

impl Member {
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What is known of how far the server tells its watches to be.
    pub(crate) fn progress(&self) -> &ServerProgress {
        &self.progress
    }

    /// Watches a range from now on, on the stream that all such watches share. Cancel-safe.
    pub(crate) async fn watch_range(
        &self,
        range: (&str, &str),
    ) -> Result<Opened, etcd_client::Error> {
        self.watches.open(&self.watch(), range).await
    }

    pub(crate) fn cluster(&self) -> ClusterClient {
        self.etcd.cluster_client()
    }

    pub(crate) fn maintenance(&self) -> MaintenanceClient {
        self.etcd.maintenance_client()
    }

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

/// What it takes to connect to one address of the endpoint at `url`. Blocks: for TLS, the issuers that the operating system trusts are
/// read from its files.
fn prepare(
    config: &EtcdConfig,
    url: &str,
    reached: &Reached,
    tls: Option<TlsOptions>,
) -> Result<Endpoint, etcd_client::Error> {
    let endpoint = Endpoint::from(reached.url.clone())
        .origin(url.parse::<Uri>()?)
        .connect_timeout(config.connect_timeout)
        .http2_keep_alive_interval(config.keep_alive_interval)
        .keep_alive_timeout(config.keep_alive_timeout)
        // etcd takes pings on a connection without any request for an attack and hangs up. A connection that died idle is found
        // out by the next request.
        .keep_alive_while_idle(false);
    let Some(tls) = tls else {
        return Ok(endpoint);
    };
    // The certificate is of the name, unless another one is expected.
    let tls = match &reached.name {
        Some(name) if config.server_name.is_none() => tls.domain_name(name),
        _ => tls,
    };
    Ok(endpoint.tls_config(tls)?)
}

fn cause(error: &Error) -> String {
    let mut cause = std::error::Error::source(error);
    if is_other_server(error) {
        // It is said once for all endpoints.
        cause = cause.and_then(std::error::Error::source);
    }
    cause.map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::{Mutex, mpsc};

    use futures_util::future::{FutureExt, ready};
    use sd_core::sync::lock;
    use sd_testing::required_env;
    use tokio::net::TcpListener;
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
        let connector = Connector::new(config.checked().unwrap(), &CloseSignal::new());
        let (write, told) = mpsc::channel::<()>();
        let writer = std::thread::spawn(move || {
            // Also if it is never told: then the runtime waits for us.
            let _ = told.recv_timeout(LONG);
            std::fs::write(pipe, "password").unwrap();
        });

        let connecting = connector.connection("test");
        tokio::pin!(connecting);
        assert!(timeout(MOMENT, &mut connecting).await.is_err());
        assert!(connector.shared.current().is_none());
        write.send(()).unwrap();
        let error = connecting.await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
        writer.join().unwrap();
    }

    /// As with a name that moved while a server was replaced, or one that names several servers.
    #[tokio::test]
    #[ignore = "needs etcd: cargo xtask test --backend etcd"]
    async fn a_name_is_looked_up_for_each_connection_and_each_of_its_addresses_tried() {
        let url: Uri = required_env("SD_TEST_ETCD").unwrap().parse().unwrap();
        let etcd = url.authority().unwrap().as_str().parse().unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = {
            let address = gone.local_addr().unwrap();
            drop(gone);
            address
        };
        let told = Arc::new(Mutex::new(vec![gone]));
        let lookup = {
            let told = Arc::clone(&told);
            move |_, _| ready(Ok(lock(&told).clone())).boxed()
        };
        let config = EtcdConfig::new(["http://etcd.example:2379"]);
        let mut connector = Connector::new(config.checked().unwrap(), &CloseSignal::new());
        connector.addresses = Addresses::found_by(lookup);
        let error = connector.connection("test").await.err().unwrap();
        let report = error.report().to_string();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{report}");
        assert!(
            report.contains("etcd.example:2379 at 127.0.0.1:"),
            "{report}"
        );

        *lock(&told) = vec![gone, silent.local_addr().unwrap(), etcd];
        let connection = timeout(LONG, connector.connection("test")).await.unwrap();
        let mut kv = connection.unwrap().kv();
        kv.get("none", None).await.unwrap();
    }
}
