//! Connections to config services and what is asked over them. Knows nothing of discovery.

pub(crate) mod connection;
pub(crate) mod credentials;
pub(crate) mod endpoints;
pub(crate) mod error;
pub(crate) mod newest;
pub(crate) mod session;
pub(crate) mod state;

use std::sync::Arc;
use std::time::Duration;

use sd_backend::{CloseSignal, SharedConnection};
use sd_core::clock::Clock;
use sd_core::{Error, ErrorKind, Result};
use tokio::time::timeout;

use crate::client::connection::Connector;
use crate::client::credentials::Tls;
use crate::client::session::Session;
use crate::client::state::State;
use crate::config::ClusterConfig;
use crate::config::rules::{FILES, RULES};

/// How long the service may take to confirm that a session is closed.
const CLOSED_WITHIN: Duration = Duration::from_millis(1500);

/// The client of one cluster, as one module.
#[derive(Debug)]
pub(crate) struct Client {
    config: Arc<ClusterConfig>,
    pub(crate) connector: Connector,
    pub(crate) signal: CloseSignal,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) state: Arc<State>,
    shared: SharedConnection<Session>,
}

/// The session in use. It stays as long as this does.
pub(crate) type SharedSession = sd_backend::Connection<Session>;

impl Client {
    /// Checks the configuration and reads the files that it names; blocks while it does, for no longer than the connect timeout.
    ///
    /// # Errors
    /// `InvalidInput` names the setting that is wrong or whose file cannot be read.
    pub(crate) fn new(config: ClusterConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        let config = Arc::new(config.checked()?);
        let of_files = Arc::clone(&config);
        RULES.read_within(FILES, config.connect_timeout, move || Tls::read(&of_files))?;
        let signal = CloseSignal::new();
        Ok(Self {
            connector: Connector::new(Arc::clone(&config))?,
            state: Arc::new(State::new(&config)),
            shared: SharedConnection::new(&signal),
            signal,
            clock,
            config,
        })
    }

    pub(crate) fn config(&self) -> &ClusterConfig {
        &self.config
    }

    /// The session in use. If there is none, or it is over, one caller at a time begins another one, at the next endpoint. Cancel-safe.
    ///
    /// # Errors
    /// `Closed`, why there is none, or `Timeout` if it takes longer than the handshake timeout.
    pub(crate) async fn session(&self, op: &'static str) -> Result<SharedSession> {
        self.signal.check_open(op)?;
        if let Some(session) = self.shared.current()
            && session.peer.is_over()
        {
            self.shared.retire(&session);
        }
        let getting = self.shared.get_or_connect(self.begin(op));
        self.signal.unless_closed(op, getting).await
    }

    async fn begin(&self, op: &'static str) -> Result<Session> {
        let limit = self.config.handshake_timeout;
        let beginning = Session::begin(op, &self.connector, &self.config, &self.state, &self.clock);
        let begun = match timeout(limit, beginning).await {
            Ok(begun) => begun,
            Err(_) => Err(Error::new(ErrorKind::Timeout, op).because(format!(
                "the service did not answer all that begins a session within {limit:?}"
            ))),
        };
        if let Err(error) = &begun {
            self.state
                .down(self.state.number(), error, self.clock.now());
        }
        begun
    }

    /// Waits until the module may be announced, if anything is wanted of the service for it. Cancel-safe.
    ///
    /// # Errors
    /// `Closed`.
    pub(crate) async fn ready(&self, op: &'static str) -> Result<()> {
        if !self.config.is_kept() {
            return self.signal.check_open(op);
        }
        let ready = async {
            self.state.ready(self.config.await_required).await;
            Ok(())
        };
        self.signal.unless_closed(op, ready).await
    }

    /// Ends the session, and has every later call answer `Closed`.
    pub(crate) async fn close(&self) {
        let session = self.shared.current();
        self.signal.close();
        if let Some(session) = session {
            session.peer.close();
            // A service that is gone confirms nothing.
            let _ = timeout(CLOSED_WITHIN, session.peer.gone()).await;
        }
    }
}
