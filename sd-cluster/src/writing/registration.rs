//! One record at the service: verified, updated, withdrawn.

use std::sync::Arc;

use async_trait::async_trait;
use sd_core::port::{Liveness, Registration, Renewed};
use sd_core::{Error, ErrorKind, Instance, RecordId, Result};
use tokio::sync::watch;

use crate::client::Client;
use crate::codec::declaration;
use crate::etp::connection::Peer;
use crate::writing::announcement::{Announcement, Told};

/// A record, with the connection that keeps it now. Shared by all who hold it.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) record: RecordId,
    /// One change at a time. `None` when the record was withdrawn.
    announcement: tokio::sync::Mutex<Option<Announcement>>,
    /// The connection in use. `None` when the record was withdrawn.
    peer: watch::Sender<Option<Peer>>,
}

impl Kept {
    pub(crate) fn new(record: RecordId, announcement: Announcement) -> Self {
        Self {
            record,
            peer: watch::Sender::new(Some(announcement.peer.clone())),
            announcement: tokio::sync::Mutex::new(Some(announcement)),
        }
    }

    /// Whether the service still keeps it, as far as that is known here.
    pub(crate) fn is_alive(&self) -> bool {
        self.peer
            .borrow()
            .as_ref()
            .is_some_and(|peer| !peer.is_over())
    }

    /// Begins to withdraw it. Returns the connection whose end tells that the service knows it.
    pub(crate) fn withdraw(&self) -> Option<Peer> {
        let peer = self.peer.send_replace(None);
        if let Some(peer) = &peer {
            peer.close();
        }
        peer
    }

    /// The connection in use.
    ///
    /// # Errors
    /// `LeaseLost` if the record is gone.
    fn peer(&self, op: &'static str) -> Result<Peer> {
        let peer = self.peer.borrow().clone();
        peer.ok_or_else(|| withdrawn(op))
    }

    /// Tells the service what the record is now. An update that needs another connection opens it before it closes the last one, so that
    /// readers see no gap: of two entries at one address they take one.
    ///
    /// # Errors
    /// As [`Registration::update`]. The record stays as it was then.
    pub(crate) async fn update(
        &self,
        op: &'static str,
        client: &Client,
        instance: &Instance,
    ) -> Result<()> {
        let declared = declaration(op, client.config(), instance)?;
        let mut current = self.announcement.lock().await;
        let peer = self.peer(op)?;
        if peer.is_over() {
            return Err(lost(op, &peer).await);
        }
        let Some(announcement) = current.as_mut() else {
            return Err(withdrawn(op));
        };
        match (&announcement.told, instance.is_ready()) {
            (Told::Yes(told), true) if **told == declared => return Ok(()),
            (Told::No, false) => return Ok(()),
            (Told::No, true) => return announcement.tell(op, declared).await,
            // Only the end of the connection takes back what is told, or may be.
            (Told::Yes(_) | Told::Maybe, _) => {}
        }
        let next = Announcement::open(op, client, instance).await?;
        let is_kept = self.peer.send_if_modified(|peer| {
            let is_kept = peer.is_some();
            if is_kept {
                *peer = Some(next.peer.clone());
            }
            is_kept
        });
        if !is_kept {
            // It was withdrawn meanwhile. The new connection is closed with `next`.
            return Err(withdrawn(op));
        }
        let last = current.replace(next);
        if let Some(last) = last {
            last.peer.close();
            // Until then, both are listed.
            last.peer.gone().await;
        }
        Ok(())
    }
}

fn withdrawn(op: &'static str) -> Error {
    Error::new(ErrorKind::LeaseLost, op).because("the record was withdrawn")
}

/// The error of a record whose connection is over.
async fn lost(op: &'static str, peer: &Peer) -> Error {
    let ended = peer.ended().await.error(op);
    Error::new(ErrorKind::LeaseLost, op).with_source(ended)
}

/// A record at the service.
#[derive(Debug)]
pub(crate) struct ClusterRegistration {
    pub(crate) client: Arc<Client>,
    pub(crate) kept: Arc<Kept>,
}

#[async_trait]
impl Registration for ClusterRegistration {
    fn liveness(&self) -> Liveness {
        Liveness::Session {
            ttl: self.client.config().silent_after(),
        }
    }

    /// Asks for a sign of life on the connection that keeps the record. The protocol has no question whether the service lists it.
    async fn renew(&self) -> Result<Renewed> {
        const OP: &str = "cluster: renew";
        self.client.signal.check_open(OP)?;
        let peer = self.kept.peer(OP)?;
        tokio::select! {
            biased;
            error = lost(OP, &peer) => Err(error),
            () = peer.sign_of_life() => Ok(Renewed::new(self.liveness())),
        }
    }

    async fn update(&self, record: &Instance) -> Result<()> {
        const OP: &str = "cluster: update";
        self.client.signal.check_open(OP)?;
        if record.record_id() != self.kept.record {
            return Err(Error::invalid_input(
                OP,
                "service, id and incarnation cannot change: register another instance",
            ));
        }
        self.kept.update(OP, &self.client, record).await
    }

    async fn lost(&self) -> Error {
        const OP: &str = "cluster: keep record";
        let mut peers = self.kept.peer.subscribe();
        loop {
            let Some(peer) = peers.borrow_and_update().clone() else {
                return withdrawn(OP);
            };
            tokio::select! {
                biased;
                // An update has another one.
                changed = peers.changed() => if changed.is_err() {
                    return withdrawn(OP);
                },
                error = lost(OP, &peer) => {
                    if peers.has_changed().unwrap_or(false) {
                        continue;
                    }
                    return error;
                }
            }
        }
    }
}
