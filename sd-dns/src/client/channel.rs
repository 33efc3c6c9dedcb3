//! One way to speak to a resolver, with the connection that is kept open.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};

use hickory_resolver::config::{ConnectionConfig, ProtocolConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle, FirstAnswer};
use hickory_resolver::proto::op::{DnsRequestOptions, DnsResponse, Query};
use hickory_resolver::{ConnectionProvider, PoolContext};
use sd_core::sync::lock;

type Connection = DnsExchange<TokioRuntimeProvider>;

/// One way to speak to a resolver. For UDP, the connection makes a socket for each question.
pub(crate) struct Channel {
    address: SocketAddr,
    config: ConnectionConfig,
    // Owns the tasks of connections, which end with it.
    provider: TokioRuntimeProvider,
    open: Mutex<Option<Connection>>,
}

impl Channel {
    pub(crate) fn new(address: SocketAddr, protocol: ProtocolConfig) -> Self {
        let mut config = ConnectionConfig::new(protocol);
        config.port = address.port();
        Self {
            address,
            config,
            provider: TokioRuntimeProvider::default(),
            open: Mutex::new(None),
        }
    }

    /// Asks over the open connection, or over a new one if there is none or the resolver has closed it. Cancel-safe.
    pub(crate) async fn ask(
        &self,
        query: &Query,
        context: &PoolContext,
    ) -> Result<DnsResponse, NetError> {
        let kept = self.slot().clone();
        if let Some(connection) = kept {
            match exchange(&connection, query).await {
                Err(error) if may_be_old(&error) => self.forget(),
                done => return done,
            }
        }
        let connecting = self
            .provider
            .new_connection(self.address.ip(), &self.config, context)?;
        let connection = connecting.await?;
        *self.slot() = Some(connection.clone());
        let answer = exchange(&connection, query).await;
        if answer.is_err() {
            self.forget();
        }
        answer
    }

    /// Has the next question make a connection of its own.
    pub(crate) fn forget(&self) {
        *self.slot() = None;
    }

    fn slot(&self) -> MutexGuard<'_, Option<Connection>> {
        lock(&self.open)
    }
}

async fn exchange(connection: &Connection, query: &Query) -> Result<DnsResponse, NetError> {
    let mut options = DnsRequestOptions::default();
    options.use_edns = true;
    options.recursion_desired = true;
    connection
        .lookup(query.clone(), options)
        .first_answer()
        .await
}

/// Whether the error may come of a connection that was closed, or of a runtime that has ended, and not of the question. Of a connection
/// that has ended, the client crate says that it is busy.
fn may_be_old(error: &NetError) -> bool {
    !matches!(
        error,
        NetError::Timeout | NetError::Proto(_) | NetError::Dns(_)
    )
}
