//! The connection that keeps one record: the service lists the module as long as it is open.

use sd_core::{Error, ErrorKind, Instance, Result};
use tokio::time::timeout;

use crate::client::Client;
use crate::client::error::AckRule;
use crate::client::session::tell;
use crate::codec::declaration;
use crate::etp::connection::{Connection, Peer};
use crate::protocol::declaration::BackendDeclaration;
use crate::protocol::events::MODULE_READY;

/// What the service was told of an instance.
#[derive(Debug)]
pub(crate) enum Told {
    /// Nothing, because it is not ready: the service lists what is told, and has no place for that.
    No,
    /// Perhaps this or that: READY was sent, and its answer has not come. The service may list the instance.
    Maybe,
    /// This, as the service has confirmed.
    Yes(Box<BackendDeclaration>),
}

/// A connection for one record. Closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Announcement {
    /// Its events are not asked for, and read away by a task.
    pub(crate) peer: Peer,
    pub(crate) told: Told,
    acks: AckRule,
    _reader: tokio_util::task::AbortOnDropHandle<()>,
}

impl Announcement {
    /// One attempt to open a connection for `instance`, and to tell of it if it is ready. Cancel-safe: a dropped call leaves nothing behind.
    ///
    /// # Errors
    /// Why it is not announced. `Timeout` if it takes longer than the handshake timeout.
    pub(crate) async fn open(
        op: &'static str,
        client: &Client,
        instance: &Instance,
    ) -> Result<Self> {
        let declared = declaration(op, client.config(), instance)?;
        let limit = client.config().handshake_timeout;
        let opening = async {
            let module = instance.service().as_str();
            let (connection, _) = client.connector.connect(op, module).await?;
            let mut announcement = Self {
                peer: connection.peer.clone(),
                told: Told::No,
                acks: client.config().acks(),
                _reader: tokio_util::task::AbortOnDropHandle::new(tokio::spawn(read_away(
                    connection,
                ))),
            };
            if instance.is_ready() {
                announcement.tell(op, declared).await?;
            }
            Ok(announcement)
        };
        match timeout(limit, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(Error::new(ErrorKind::Timeout, op).because(format!(
                "the service did not confirm that the module is ready within {limit:?}"
            ))),
        }
    }

    /// Tells the service that the module is ready. It takes that once on each connection. Cancel-safe: `told` says what may have come of it.
    ///
    /// # Errors
    /// Why it is not confirmed.
    pub(crate) async fn tell(
        &mut self,
        op: &'static str,
        declared: BackendDeclaration,
    ) -> Result<()> {
        self.told = Told::Maybe;
        tell(op, &self.peer, self.acks, MODULE_READY, &declared).await?;
        self.told = Told::Yes(Box::new(declared));
        Ok(())
    }
}

/// Answers events, which no one has asked for on such a connection, so that the connection goes on to be read.
async fn read_away(mut connection: Connection) {
    while let Some(event) = connection.events.recv().await {
        // Fails if the connection is over, which ends the loop.
        let _ = connection.peer.answer("cluster: record", &event, "").await;
    }
}
