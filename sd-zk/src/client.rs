//! Requests to ZooKeeper and their answers. Knows nothing of discovery.

pub(crate) mod connection;
pub(crate) mod credentials;
pub(crate) mod ensemble;
pub(crate) mod error;
#[cfg(feature = "exhibitor")]
pub(crate) mod exhibitor_http;
pub(crate) mod exhibitors;
pub(crate) mod members;
pub(crate) mod parents;
pub(crate) mod probe;
pub(crate) mod renewable;
pub(crate) mod session;
pub(crate) mod watch;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use sd_backend::CloseSignal;
use sd_core::clock::{BootClock, Clock};
use sd_core::sync::lock;
use sd_core::{ErrorKind, Result};
use tokio::runtime::Handle;
use zookeeper_client as zk;

use crate::client::connection::Connector;
use crate::client::ensemble::Ensemble;
use crate::client::error::for_readers;
use crate::client::session::Session;
use crate::config::ZkConfig;
use crate::config::access::Access;

/// One ensemble, reached in one session at a time. Does nothing until it is used.
pub(crate) struct Client {
    connector: Connector,
    pub(crate) signal: CloseSignal,
    /// The clients of the same ensemble that have sessions of their own.
    siblings: Mutex<Vec<Weak<Client>>>,
}

impl Client {
    /// A client for a [checked](ZkConfig::checked) configuration.
    pub(crate) fn new(config: ZkConfig) -> Result<Self> {
        let session_timeout = config.session_timeout;
        let ensemble = Arc::new(Ensemble::new(&config)?);
        let (signal, config) = (CloseSignal::new(), Arc::new(config));
        let clock = Arc::new(BootClock);
        Ok(Self::on(signal, config, ensemble, session_timeout, clock))
    }

    fn on(
        signal: CloseSignal,
        config: Arc<ZkConfig>,
        ensemble: Arc<Ensemble>,
        session_timeout: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            connector: Connector::new(config, ensemble, session_timeout, clock, signal.clone()),
            signal,
            siblings: Mutex::default(),
        }
    }

    /// A client of the same ensemble whose sessions are its own and have this time-out. It is closed with this one. The runtime that first
    /// uses it drives its sessions. This clock says when they were asked for.
    pub(crate) fn sibling(&self, session_timeout: Duration, clock: Arc<dyn Clock>) -> Arc<Self> {
        let config = Arc::clone(self.connector.config());
        let ensemble = Arc::clone(self.connector.ensemble());
        let signal = self.signal.clone();
        let sibling = Self::on(signal, config, ensemble, session_timeout, clock);
        let sibling = Arc::new(sibling);
        let mut siblings = lock(&self.siblings);
        siblings.retain(|other| other.strong_count() > 0);
        siblings.push(Arc::downgrade(&sibling));
        drop(siblings);
        sibling
    }

    pub(crate) fn config(&self) -> &ZkConfig {
        self.connector.config()
    }

    /// The access control list of the nodes that we make.
    pub(crate) fn acls(&self) -> zk::Acls<'static> {
        match self.config().access {
            Access::Open => zk::Acls::anyone_all(),
            Access::ReadOnly => zk::Acls::new(&READ_ONLY),
            Access::Private => zk::Acls::creator_all(),
        }
    }

    /// The session to use now. Makes one if there is none. Cancel-safe.
    ///
    /// # Errors
    /// `Closed`, or why there is none.
    pub(crate) async fn session(&self, op: &'static str) -> Result<Session> {
        let session = self.connector.session(op);
        self.signal.unless_closed(op, session).await
    }

    /// The runtime that drives the session, if there is one or is to be.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.connector.runtime()
    }

    /// Reads something in the session to use now, and once again in the next one if that one ends meanwhile.
    ///
    /// # Errors
    /// As [`session`](Self::session), and those of `read`.
    pub(crate) async fn read<T, Fut>(
        &self,
        op: &'static str,
        read: impl Fn(Session) -> Fut,
    ) -> Result<T>
    where
        Fut: Future<Output = Result<T>>,
    {
        let session = self.session(op).await?;
        match read(session).await {
            Err(error) if error.kind() == ErrorKind::LeaseLost => {
                let session = self.session(op).await?;
                read(session).await.map_err(for_readers)
            }
            done => done,
        }
    }

    /// Answers every request from now on, also those under way, with `Closed`, and ends the session. So do its siblings.
    pub(crate) async fn close(&self) {
        self.signal.close();
        let siblings: Vec<_> = lock(&self.siblings)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        let of_siblings = siblings
            .into_iter()
            .map(|sibling| async move { sibling.connector.close().await });
        tokio::join!(self.connector.close(), join_all(of_siblings));
    }
}

/// Everyone may read, and those with our login may do everything.
static READ_ONLY: [zk::Acl; 2] = [
    zk::Acl::new_const(zk::Permission::READ, "world", "anyone"),
    zk::Acl::new_const(zk::Permission::ALL, "auth", ""),
];

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoints", &self.config().endpoints)
            .field("chroot", &self.config().chroot)
            .field("prefix", &self.config().prefix)
            .finish_non_exhaustive()
    }
}
