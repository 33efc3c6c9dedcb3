//! One way to speak to a resolver, with the connection that is kept open.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use hickory_resolver::config::{ConnectionConfig, ProtocolConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle, FirstAnswer};
use hickory_resolver::proto::op::{DnsRequestOptions, DnsResponse, Query};
use hickory_resolver::{ConnectionProvider, PoolContext};
use sd_core::sync::lock;
use tokio::time::{Instant, timeout_at};

use crate::client::datagrams::Provider;

type Connection = DnsExchange<Provider>;
/// A connection that is open or is being made. All questions that need one share it, and the reason why there is none.
type Opening = Shared<BoxFuture<'static, Result<Connection, NetError>>>;

/// One way to speak to a resolver. For UDP, the connection makes a socket for each question.
pub(crate) struct Channel {
    address: SocketAddr,
    config: ConnectionConfig,
    // Owns the tasks of connections, which end with it.
    provider: Provider,
    open: Mutex<Option<Opening>>,
}

/// What is asked over a channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) query: &'a Query,
    /// With EDNS(0) (RFC 6891), which allows longer datagrams.
    pub(crate) with_edns: bool,
    pub(crate) by: Instant,
}

impl Channel {
    pub(crate) fn new(address: SocketAddr, protocol: ProtocolConfig) -> Self {
        let mut config = ConnectionConfig::new(protocol);
        config.port = address.port();
        Self {
            address,
            config,
            provider: Provider::default(),
            open: Mutex::new(None),
        }
    }

    /// Asks over the open connection, or over a new one if there is none or the resolver has closed it. Cancel-safe.
    pub(crate) async fn ask(
        &self,
        question: Question<'_>,
        context: &PoolContext,
    ) -> Result<DnsResponse, NetError> {
        let kept = self.slot().clone();
        if let Some(kept) = kept {
            match self.ask_over(&kept, question).await {
                Err(error) if may_be_old(&error) => {}
                done => return done,
            }
        }
        let opening = self.opening(context)?;
        self.ask_over(&opening, question).await
    }

    /// The connection that another question has opened or is opening, or a new one.
    fn opening(&self, context: &PoolContext) -> Result<Opening, NetError> {
        let mut slot = self.slot();
        if let Some(opening) = &*slot {
            return Ok(opening.clone());
        }
        let ip = self.address.ip();
        let connecting = self.provider.new_connection(ip, &self.config, context)?;
        Ok(slot.insert(connecting.shared()).clone())
    }

    /// A connection on which a question was not answered is not used again: it may be dead, or that of a runtime that stands still.
    async fn ask_over(
        &self,
        opening: &Opening,
        question: Question<'_>,
    ) -> Result<DnsResponse, NetError> {
        let asked = async {
            let connection = self.opened(opening).await?;
            exchange(&connection, question).await
        };
        let answer = timeout_at(question.by, asked).await;
        let answer = answer.unwrap_or(Err(NetError::Timeout));
        if answer.is_err() {
            self.forget(opening);
        }
        answer
    }

    async fn opened(&self, opening: &Opening) -> Result<Connection, NetError> {
        let mut unless_open = ForgetUnlessOpen {
            channel: self,
            opening,
            is_open: false,
        };
        let connection = opening.clone().await?;
        unless_open.is_open = true;
        Ok(connection)
    }

    /// Has the next question make a connection of its own, unless another one has replaced this.
    fn forget(&self, opening: &Opening) {
        let mut slot = self.slot();
        if slot.as_ref().is_some_and(|kept| kept.ptr_eq(opening)) {
            *slot = None;
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Opening>> {
        lock(&self.open)
    }
}

/// What is given up while it is being opened is not waited for again: it may never be driven, and may panic if its runtime has ended.
struct ForgetUnlessOpen<'a> {
    channel: &'a Channel,
    opening: &'a Opening,
    is_open: bool,
}

impl Drop for ForgetUnlessOpen<'_> {
    fn drop(&mut self) {
        if !self.is_open {
            self.channel.forget(self.opening);
        }
    }
}

async fn exchange(
    connection: &Connection,
    question: Question<'_>,
) -> Result<DnsResponse, NetError> {
    let mut options = DnsRequestOptions::default();
    options.use_edns = question.with_edns;
    options.recursion_desired = true;
    connection
        .lookup(question.query.clone(), options)
        .first_answer()
        .await
}

/// Whether the error may come of a connection that was closed, or of a runtime that has ended, and not of the question. Of a connection
/// that has ended, the client crate says that it is busy.
fn may_be_old(error: &NetError) -> bool {
    !matches!(error, NetError::Timeout | NetError::Proto(_))
}
