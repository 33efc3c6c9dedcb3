//! Makes the session that requests share, when it is needed, and the next one when it has ended.
//!
//! A task of ours connects and then watches over the session, so that neither depends on the future of a caller. It runs on the runtime
//! that first needed the session. When that runtime ends, so does the task, and the session with it.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use sd_backend::{CloseSignal, FileThread};
use sd_core::clock::{Clock, Moment};
use sd_core::sync::lock;
use sd_core::{Endpoint, Error, ErrorKind, Result, panics};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};
use zookeeper_client as zk;

use crate::client::ensemble::Ensemble;
use crate::client::error::{for_readers, translate};
use crate::client::probe::{CAUSES, probe};
use crate::client::renewable::{Renewable, credentials};
use crate::client::session::Session;
use crate::config::ZkConfig;

/// How often all endpoints are tried while one of them accepts connections.
const PASSES: u32 = 3;
const BETWEEN_PASSES: Duration = Duration::from_millis(200);
/// How long a connection may be silent, at most. By itself the client crate allows two fifths of the session's time-out.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);
/// How long the server may take to make a session that is to be closed, and to confirm that it is.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);

/// Makes sessions, one at a time.
pub(crate) struct Connector {
    config: Arc<ZkConfig>,
    ensemble: Arc<Ensemble>,
    files: Arc<FileThread>,
    session_timeout: Duration,
    clock: Arc<dyn Clock>,
    signal: CloseSignal,
    current: Mutex<Option<Attempt>>,
}

/// An attempt to make a session, which owns the session that came of it.
struct Attempt {
    told: watch::Receiver<Option<Result<Session>>>,
    runtime: Handle,
    _task: AbortOnDropHandle<()>,
}

impl Attempt {
    /// Whether another one must be made.
    fn is_over(&self) -> bool {
        match &*self.told.borrow() {
            Some(Ok(session)) => session.has_ended(),
            Some(Err(_)) => true,
            // Its runtime has ended.
            None => self.told.has_changed().is_err(),
        }
    }

    /// Ends the session that was made. Returns it.
    fn end(self) -> Option<Session> {
        let session = match &*self.told.borrow() {
            Some(Ok(session)) => session.clone(),
            _ => return None,
        };
        session.end("the registry was closed or dropped");
        Some(session)
    }
}

impl Connector {
    /// For a [checked](ZkConfig::checked) configuration, and sessions with this time-out. Makes none once the signal has closed.
    pub(crate) fn new(
        config: Arc<ZkConfig>,
        ensemble: Arc<Ensemble>,
        session_timeout: Duration,
        clock: Arc<dyn Clock>,
        signal: CloseSignal,
    ) -> Self {
        Self {
            config,
            ensemble,
            files: Arc::default(),
            session_timeout,
            clock,
            signal,
            current: Mutex::default(),
        }
    }

    pub(crate) fn config(&self) -> &Arc<ZkConfig> {
        &self.config
    }

    pub(crate) fn ensemble(&self) -> &Arc<Ensemble> {
        &self.ensemble
    }

    /// The session to use now. Makes one if there is none, and waits for it. Cancel-safe.
    ///
    /// # Errors
    /// `Closed`, why none could be made, or `Timeout` if that takes longer than a request may: it goes on nevertheless.
    pub(crate) async fn session(&self, op: &'static str) -> Result<Session> {
        let mut told = {
            let mut current = lock(&self.current);
            // Under the lock, so that none is begun after the close has taken the last one.
            self.signal.check_open(op)?;
            let attempt = match current.take().filter(|attempt| !attempt.is_over()) {
                Some(attempt) => attempt,
                None => self.begin(),
            };
            current.insert(attempt).told.clone()
        };
        let limit = self.config.request_timeout;
        let Ok(made) = timeout(limit, told.wait_for(Option::is_some)).await else {
            let servers = joined(&self.ensemble.known());
            return Err(Error::new(ErrorKind::Timeout, op).because(format!(
                "there was no session with any of {servers} within {limit:?}: {CAUSES}"
            )));
        };
        match made.as_deref() {
            Ok(Some(Ok(session))) => Ok(session.clone()),
            Ok(Some(Err(error))) => Err(Error::new(error.kind(), op).with_source(error.clone())),
            Ok(None) | Err(_) => Err(Error::new(ErrorKind::Unavailable, op)
                .because("the runtime that was connecting to the server has ended")),
        }
    }

    /// The runtime that drives the session, if there is one or is to be.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        let current = lock(&self.current);
        let attempt = current.as_ref().filter(|attempt| !attempt.is_over());
        attempt.map(|attempt| attempt.runtime.clone())
    }

    /// Starts the task that makes a session and watches over it.
    fn begin(&self) -> Attempt {
        let (tell, told) = watch::channel(None);
        let (config, files) = (Arc::clone(&self.config), Arc::clone(&self.files));
        let ensemble = Arc::clone(&self.ensemble);
        let (session_timeout, clock) = (self.session_timeout, Arc::clone(&self.clock));
        let task = tokio::spawn(async move {
            let connecting = connect(&config, &ensemble, &files, session_timeout, &*clock);
            let made = match panics::caught(OP, connecting).await {
                Ok(made) => made,
                Err(error) => {
                    tell.send_replace(Some(Err(error)));
                    return;
                }
            };
            info!(session = %made.client.session_id(), "zookeeper session made");
            let session = Session::new(made.client, config.request_timeout, made.asked);
            let watched = Watched(session.clone());
            tell.send_replace(Some(Ok(session)));
            // A file that hangs must not keep the end of the session from being noticed.
            tokio::select! {
                () = watched.until_end(&ensemble, &made.servers) => {}
                () = made.renewable.keep_up(&watched.0, &config, &files) => {}
            }
        });
        Attempt {
            told,
            runtime: Handle::current(),
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Ends the session after the signal has closed, and waits a while until the server has confirmed that.
    pub(crate) async fn close(&self) {
        let attempt = lock(&self.current).take();
        let Some(attempt) = attempt else {
            return;
        };
        // One that the server is making could not be closed any more.
        let mut told = attempt.told.clone();
        let _ = timeout(CLOSED_WITHIN, told.wait_for(Option::is_some)).await;
        let Some(session) = attempt.end() else {
            return;
        };
        let mut states = session.states();
        let closed = async { while !states.changed().await.is_terminated() {} };
        if !session.states().peek_state().is_terminated()
            && timeout(CLOSED_WITHIN, closed).await.is_err()
        {
            debug!(
                ?session,
                "the server did not confirm that the session is closed"
            );
        }
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        if let Some(attempt) = lock(&self.current).take() {
            attempt.end();
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connector")
            .field(&self.config.endpoints)
            .finish()
    }
}

/// A session under watch, which ends with this.
struct Watched(Session);

impl Watched {
    /// Returns when the session has ended, with the reason noted. Ends it when all that its client knows is out of reach, but the ensemble
    /// is not.
    async fn until_end(&self, ensemble: &Ensemble, servers: &[Endpoint]) {
        let session = &self.0;
        tokio::select! {
            () = self.until_told_end() => {}
            () = ensemble.follow(session) => {}
            () = ensemble.has_moved(session, servers) => {
                let (old, new) = (joined(servers), joined(&ensemble.known()));
                session.end(format!("{old} cannot be reached, and the servers are now {new}"));
            }
        }
    }

    /// Notes the end of the session that its client tells.
    async fn until_told_end(&self) {
        let session = &self.0;
        let mut states = session.states();
        let mut state = states.state();
        while !state.is_terminated() {
            tokio::select! {
                next = states.changed() => state = next,
                _ = session.ended(OP) => return,
            }
            debug!(?session, %state, "zookeeper session");
            if state == zk::SessionState::Disconnected && !session.can_reconnect() {
                session.end(
                    "its connection was lost, and its client cannot set so many watches again",
                );
                return;
            }
        }
        session.end(match state {
            zk::SessionState::Expired => "it expired",
            zk::SessionState::AuthFailed => "the server refused the login",
            _ => "its client was closed",
        });
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.end("the runtime that drove it has ended");
    }
}

const OP: &str = "zk: connect";

/// What came of connecting.
struct Made {
    client: zk::Client,
    /// Not later than the request that made the session.
    asked: Moment,
    /// Those that the client knows.
    servers: Vec<Endpoint>,
    renewable: Renewable,
}

/// Makes one session, at the first server that does.
async fn connect(
    config: &Arc<ZkConfig>,
    ensemble: &Ensemble,
    files: &FileThread,
    session_timeout: Duration,
    clock: &dyn Clock,
) -> Result<Made> {
    let credentials = credentials(OP, config, files).await?;
    let mut connector = zk::Client::connector()
        .with_session_timeout(session_timeout)
        .with_fail_eagerly();
    if session_timeout * 2 / 5 > LONGEST_SILENCE {
        connector = connector.with_connection_timeout(LONGEST_SILENCE);
    }
    let (connector, certs) = credentials.apply(connector);
    let mut servers = ensemble.newest().await?;
    let mut passes = PASSES;
    loop {
        let connect_string = connect_string(config, &servers);
        let asked = clock.now();
        let error = match connector.clone().connect(&connect_string).await {
            Ok(client) => {
                let renewable = Renewable::new(certs, credentials.digest());
                return Ok(Made {
                    client,
                    asked,
                    servers,
                    renewable,
                });
            }
            Err(error) => error,
        };
        if !matches!(error, zk::Error::NoHosts | zk::Error::Timeout) {
            // There was no session that could have been lost.
            return Err(for_readers(translate(OP, error)));
        }
        let tls = credentials.tls();
        let probes = join_all(servers.iter().map(|server| probe(server, tls))).await;
        let all = ensemble.all().await;
        let has_more = all.iter().any(|server| !servers.contains(server));
        passes -= 1;
        // One that is there may be busy, or about to serve.
        if passes == 0 || !has_more && probes.iter().all(Result::is_err) {
            let told = probes
                .into_iter()
                .map(|probe| probe.unwrap_or_else(|why| why));
            let told = told.collect::<Vec<_>>().join("; ");
            return Err(Error::new(ErrorKind::Unavailable, OP).because(told));
        }
        servers = all;
        sleep(BETWEEN_PASSES).await;
    }
}

/// The servers and the chroot as the client crate reads them.
fn connect_string(config: &ZkConfig, servers: &[Endpoint]) -> String {
    let scheme = if config.speaks_tls() {
        "tcp+tls"
    } else {
        "tcp"
    };
    let servers = servers.iter().map(|server| format!("{scheme}://{server}"));
    servers.collect::<Vec<_>>().join(",") + &config.chroot
}

fn joined(servers: &[Endpoint]) -> String {
    let servers = servers.iter().map(Endpoint::to_string);
    servers.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use sd_core::clock::BootClock;

    use super::*;

    #[test]
    fn the_client_is_told_the_servers_and_the_chroot() {
        let config = |config: ZkConfig| {
            let config = config.checked().unwrap();
            connect_string(&config, &Ensemble::new(&config).unwrap().known())
        };
        let plain = ZkConfig::new(["h1", "[::1]:7"]).with_chroot("/a/b/");
        assert_eq!(config(plain), "tcp://h1:2181,tcp://[::1]:7/a/b");
        let secure = ZkConfig::new(["h1"]).with_ca("/ca");
        assert_eq!(config(secure), "tcp+tls://h1:2181");
    }

    fn connector(config: ZkConfig, signal: CloseSignal) -> Connector {
        let ensemble = Arc::new(Ensemble::new(&config).unwrap());
        let (timeout, clock) = (config.session_timeout, Arc::new(BootClock));
        Connector::new(Arc::new(config), ensemble, timeout, clock, signal)
    }

    #[tokio::test]
    async fn an_endpoint_that_refuses_is_named_with_its_reason() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = gone.local_addr().unwrap().to_string();
        drop(gone);
        let config = ZkConfig::new([&address]).checked().unwrap();
        let connector = connector(config, CloseSignal::new());
        let error = connector.session("test").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let report = error.report().to_string();
        assert!(
            report.contains(&address) && report.contains("refused"),
            "{report}"
        );
    }

    #[tokio::test]
    async fn a_session_that_is_asked_for_while_the_registry_is_closed_is_not_made() {
        let config = ZkConfig::new(["127.0.0.1:1"]).checked().unwrap();
        let signal = CloseSignal::new();
        let connector = connector(config, signal.clone());
        signal.close();
        connector.close().await;
        // By a call that has just seen the registry open.
        let error = connector.session("test").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert!(lock(&connector.current).is_none());
    }

    #[tokio::test]
    async fn an_endpoint_that_hangs_up_is_named_with_what_may_be_wrong() {
        let hanging_up = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = hanging_up.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            loop {
                drop(hanging_up.accept().await);
            }
        });
        let config = ZkConfig::new([&address]).checked().unwrap();
        let connector = connector(config, CloseSignal::new());
        let error = connector.session("test").await.unwrap_err();
        let report = error.report().to_string();
        assert!(report.contains("maxClientCnxns"), "{report}");
        server.abort();
    }
}
