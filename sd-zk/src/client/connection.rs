//! Makes the session that requests share, when it is needed, and the next one when it has ended.
//!
//! A task of ours connects and then watches over the session, so that neither depends on the future of a caller. It runs on the runtime
//! that first needed the session. When that runtime ends, so does the task, and the session with it.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use sd_backend::{CloseSignal, FileThread, Secret};
use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, Result, panics};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};
use zookeeper_client as zk;

use crate::client::credentials::Credentials;
use crate::client::error::{for_readers, translate};
use crate::client::probe::{CAUSES, probe};
use crate::client::session::Session;
use crate::config::ZkConfig;
use crate::config::rules::{DEFAULT_PORT, FILES, RULES};

/// How often all endpoints are tried while one of them accepts connections.
const PASSES: u32 = 3;
const BETWEEN_PASSES: Duration = Duration::from_millis(200);
/// How long a connection may be silent, at most. By itself the client crate allows two fifths of the session's time-out.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);
/// How long the server may take to confirm that a session is closed.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);

/// Makes sessions, one at a time.
pub(crate) struct Connector {
    config: Arc<ZkConfig>,
    files: Arc<FileThread>,
    session_timeout: Duration,
    signal: CloseSignal,
    current: Mutex<Option<Attempt>>,
}

/// An attempt to make a session, which owns the session that came of it.
struct Attempt {
    told: watch::Receiver<Option<Result<Session>>>,
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

    fn session(&self) -> Option<Session> {
        match &*self.told.borrow() {
            Some(Ok(session)) => Some(session.clone()),
            _ => None,
        }
    }
}

impl Connector {
    /// For a [checked](ZkConfig::checked) configuration, and sessions with this time-out. Makes none once the signal has closed.
    pub(crate) fn new(
        config: Arc<ZkConfig>,
        session_timeout: Duration,
        signal: CloseSignal,
    ) -> Self {
        Self {
            config,
            files: Arc::default(),
            session_timeout,
            signal,
            current: Mutex::default(),
        }
    }

    pub(crate) fn config(&self) -> &Arc<ZkConfig> {
        &self.config
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
            let servers = self.config.endpoints.join(", ");
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

    /// Starts the task that makes a session and watches over it.
    fn begin(&self) -> Attempt {
        let (tell, told) = watch::channel(None);
        let (config, files) = (Arc::clone(&self.config), Arc::clone(&self.files));
        let session_timeout = self.session_timeout;
        let task = tokio::spawn(async move {
            let made = panics::caught(OP, connect(&config, &files, session_timeout)).await;
            let (session, renewable) = match made {
                Ok((client, renewable)) => {
                    info!(session = %client.session_id(), "zookeeper session made");
                    (Session::new(client, config.request_timeout), renewable)
                }
                Err(error) => {
                    tell.send_replace(Some(Err(error)));
                    return;
                }
            };
            let watched = Watched(session.clone());
            tell.send_replace(Some(Ok(session)));
            // A file that hangs must not keep the end of the session from being noticed.
            tokio::select! {
                () = watched.until_end() => {}
                () = renewable.keep_up(&watched.0, &config, &files) => {}
            }
        });
        Attempt {
            told,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Ends the session.
    pub(crate) fn let_go(&self) {
        drop(self.taken());
    }

    /// Ends the session after the signal has closed, and waits a while until the server has confirmed that.
    pub(crate) async fn close(&self) {
        let Some(session) = self.taken() else {
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

    fn taken(&self) -> Option<Session> {
        let attempt = lock(&self.current).take()?;
        let session = attempt.session()?;
        session.end("the registry was closed or dropped");
        Some(session)
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        self.let_go();
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
    /// Notes the end of the session that its client tells.
    async fn until_end(&self) {
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

/// Makes one session, at the first endpoint that does.
async fn connect(
    config: &Arc<ZkConfig>,
    files: &FileThread,
    session_timeout: Duration,
) -> Result<(zk::Client, Renewable)> {
    let credentials = credentials(config, files).await?;
    let mut connector = zk::Client::connector()
        .with_session_timeout(session_timeout)
        .with_fail_eagerly();
    if session_timeout * 2 / 5 > LONGEST_SILENCE {
        connector = connector.with_connection_timeout(LONGEST_SILENCE);
    }
    let (connector, certs) = credentials.apply(connector);
    let servers = connect_string(config)?;
    let mut passes = PASSES;
    loop {
        let error = match connector.clone().connect(&servers).await {
            Ok(client) => {
                let login = credentials.login;
                return Ok((client, Renewable { certs, login }));
            }
            Err(error) => error,
        };
        if !matches!(error, zk::Error::NoHosts | zk::Error::Timeout) {
            // There was no session that could have been lost.
            return Err(for_readers(translate(OP, error)));
        }
        let probes = config.endpoints.addresses(RULES, DEFAULT_PORT)?;
        let tls = credentials.tls();
        let probes = join_all(probes.iter().map(|server| probe(server, tls))).await;
        passes -= 1;
        // One that is there may be busy, or about to serve.
        if passes == 0 || probes.iter().all(Result::is_err) {
            let told = probes
                .into_iter()
                .map(|probe| probe.unwrap_or_else(|why| why));
            let told = told.collect::<Vec<_>>().join("; ");
            return Err(Error::new(ErrorKind::Unavailable, OP).because(told));
        }
        sleep(BETWEEN_PASSES).await;
    }
}

/// Reads what is in files, as it is now.
async fn credentials(config: &Arc<ZkConfig>, files: &FileThread) -> Result<Credentials> {
    let (of_files, limit) = (Arc::clone(config), config.request_timeout);
    let reading = files.run(OP, move || Credentials::read(&of_files));
    let Ok(read) = timeout(limit, reading).await else {
        return Err(Error::new(ErrorKind::Unavailable, OP).because(format!(
            "the files of {FILES} were not read within {limit:?}: look for one that hangs"
        )));
    };
    // They were fine at the start, so they may be mended.
    read?.map_err(|error| Error::new(ErrorKind::Denied, OP).with_source(error))
}

/// What a client can be told again while its session lasts.
struct Renewable {
    certs: Option<zk::TlsDynamicCerts>,
    login: Option<Secret>,
}

impl Renewable {
    /// Tells the client what is in the files each time that it has lost its connection, or something was denied. Never
    /// returns.
    async fn keep_up(mut self, session: &Session, config: &Arc<ZkConfig>, files: &FileThread) {
        if self.certs.is_none() && config.password_file.is_none() {
            return std::future::pending().await;
        }
        let mut states = session.states();
        loop {
            let state = tokio::select! {
                state = states.changed() => state,
                () = session.denied() => zk::SessionState::Disconnected,
            };
            if state.is_terminated() {
                return std::future::pending().await;
            }
            if state == zk::SessionState::Disconnected {
                self.renew(session, config, files).await;
            }
        }
    }

    /// Tells the client what is in the files now. Where they cannot be read, what was told before stays.
    async fn renew(&mut self, session: &Session, config: &Arc<ZkConfig>, files: &FileThread) {
        let now = match credentials(config, files).await {
            Ok(now) => now,
            Err(error) => {
                debug!(error = %error.report(), "credentials cannot be read again");
                return;
            }
        };
        let login = now.login.clone();
        if let (Some(certs), Some(now)) = (&self.certs, now.certs()) {
            certs.update(now);
        }
        if let Some(login) = login.filter(|login| Some(login) != self.login.as_ref())
            && let Ok(client) = session.client(OP).await
        {
            let logging_in = client.auth("digest", login.expose().as_bytes());
            if session.call(OP, logging_in).await.is_ok() {
                self.login = Some(login);
            }
        }
    }
}

/// The servers and the chroot as the client crate reads them.
fn connect_string(config: &ZkConfig) -> Result<String> {
    let scheme = if config.speaks_tls() {
        "tcp+tls"
    } else {
        "tcp"
    };
    let servers = config.endpoints.addresses(RULES, DEFAULT_PORT)?;
    let servers = servers.iter().map(|server| format!("{scheme}://{server}"));
    Ok(servers.collect::<Vec<_>>().join(",") + &config.chroot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_told_the_servers_and_the_chroot() {
        let config = |config: ZkConfig| connect_string(&config.checked().unwrap()).unwrap();
        let plain = ZkConfig::new(["h1", "[::1]:7"]).with_chroot("/a/b/");
        assert_eq!(config(plain), "tcp://h1:2181,tcp://[::1]:7/a/b");
        let secure = ZkConfig::new(["h1"]).with_ca("/ca");
        assert_eq!(config(secure), "tcp+tls://h1:2181");
    }

    #[tokio::test]
    async fn an_endpoint_that_refuses_is_named_with_its_reason() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = gone.local_addr().unwrap().to_string();
        drop(gone);
        let config = ZkConfig::new([&address]).checked().unwrap();
        let timeout = config.session_timeout;
        let connector = Connector::new(Arc::new(config), timeout, CloseSignal::new());
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
        let timeout = config.session_timeout;
        let signal = CloseSignal::new();
        let connector = Connector::new(Arc::new(config), timeout, signal.clone());
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
        let timeout = config.session_timeout;
        let connector = Connector::new(Arc::new(config), timeout, CloseSignal::new());
        let error = connector.session("test").await.unwrap_err();
        let report = error.report().to_string();
        assert!(report.contains("maxClientCnxns"), "{report}");
        server.abort();
    }
}
