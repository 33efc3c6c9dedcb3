//! Where the server of a key is: alone, behind Sentinels or in a Cluster.
//!
//! The rest of the client knows places. A place is what one connection for commands serves: all keys, or those of one node of a Cluster.

mod cluster;
mod recheck;
mod rotation;
mod sentinels;
mod standalone;

use std::sync::Arc;

use redis::aio::AsyncPushSender;
use sd_core::{Endpoint, Result};

use crate::client::connection::{Dialer, Link, Purpose};
use crate::client::nodes::Nodes;
use crate::client::topology::cluster::Cluster;
use crate::client::topology::sentinels::Sentinels;
use crate::client::topology::standalone::{Role, Standalone};
use crate::config::topology::Topology as Kind;

pub(crate) use crate::client::topology::cluster::slot_of;

/// The node of a Cluster; `None` where one server has all keys.
pub(crate) type Place = Option<Endpoint>;

/// How servers belong together, and what is known of that now.
#[derive(Debug)]
pub(crate) enum Topology {
    Standalone(Standalone),
    Sentinel(Sentinels),
    Cluster(Cluster),
}

impl Topology {
    /// Of the servers that the configuration names.
    pub(crate) fn new(dialer: &Arc<Dialer>, nodes: &Arc<Nodes>) -> Self {
        let config = dialer.config();
        let (named, dialer) = (config.addresses(), Arc::clone(dialer));
        match config.topology {
            Kind::Standalone => Self::Standalone(Standalone::new(named, Role::Primary, dialer)),
            Kind::Sentinel => Self::Sentinel(Sentinels::new(named, dialer, nodes.signal())),
            Kind::Cluster => Self::Cluster(Cluster::new(named, dialer, Arc::clone(nodes))),
        }
    }

    /// Of the servers that are read, primaries or replicas.
    pub(crate) fn of_readers(dialer: &Arc<Dialer>) -> Self {
        let named = dialer.config().read_addresses();
        Self::Standalone(Standalone::new(named, Role::Any, Arc::clone(dialer)))
    }

    /// The place of the keys of this slot.
    ///
    /// # Errors
    /// No server says where it is.
    pub(crate) async fn place(&self, op: &'static str, slot: u16) -> Result<Place> {
        match self {
            Self::Standalone(_) | Self::Sentinel(_) => Ok(None),
            Self::Cluster(cluster) => cluster.node(op, slot).await.map(Some),
        }
    }

    /// Connects to the primary of a place.
    ///
    /// # Errors
    /// Why there is none to be had.
    pub(crate) async fn open(&self, op: &'static str, place: &Place) -> Result<Link> {
        match (self, place) {
            (Self::Cluster(cluster), Some(node)) => cluster.open(op, node).await,
            _ => self.open_any(op, Purpose::Commands).await,
        }
    }

    /// Connects to a server that tells what is published at any.
    ///
    /// # Errors
    /// Why there is none to be had.
    pub(crate) async fn open_for_pushes(
        &self,
        op: &'static str,
        sender: Arc<dyn AsyncPushSender>,
    ) -> Result<Link> {
        self.open_any(op, Purpose::Pushes(sender)).await
    }

    async fn open_any(&self, op: &'static str, purpose: Purpose) -> Result<Link> {
        match self {
            Self::Standalone(standalone) => standalone.open(op, purpose).await,
            Self::Sentinel(sentinels) => sentinels.open(op, purpose).await,
            Self::Cluster(cluster) => cluster.open_any(op, purpose).await,
        }
    }

    /// Whether the primary is known to be another one than the server of this connection. Asks now and then.
    ///
    /// # Cancel safety
    /// After a dropped call, the next one that asks comes later.
    pub(crate) async fn has_left(&self, op: &'static str, link: &Link) -> bool {
        match self {
            Self::Standalone(standalone) => standalone.has_left(op, link).await,
            Self::Sentinel(sentinels) => sentinels.have_left(op, link.address()).await,
            // A node that has lost a slot says so to each request.
            Self::Cluster(_) => false,
        }
    }

    /// What was known may be wrong: this server does not answer, or said that it is not the primary, or misses others.
    pub(crate) fn doubt(&self, server: &Endpoint) {
        match self {
            Self::Standalone(standalone) => standalone.doubt(server),
            // They are asked before each connection.
            Self::Sentinel(_) => {}
            Self::Cluster(cluster) => cluster.doubt(server),
        }
    }

    /// Connections are tried at this server first, which one is open to.
    pub(crate) fn prefer(&self, server: &Endpoint) {
        if let Self::Standalone(standalone) = self {
            standalone.prefer(server);
        }
    }

    /// A node said that another one has the keys of this slot now.
    pub(crate) fn note_moved(&self, slot: u16, node: &Endpoint) {
        if let Self::Cluster(cluster) = self {
            cluster.note_moved(slot, node);
        }
    }
}
