//! A Redis Cluster: which node has the keys of a slot.

mod known;
mod refresh;
mod slots;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sd_core::sync::lock;
use sd_core::{Endpoint, Error, ErrorKind, Result};
use tokio::time::Instant;

use crate::client::connection::{Dialer, Link, Purpose};
use crate::client::nodes::Nodes;
use crate::client::topology::cluster::known::{Found, Known};
use crate::client::topology::cluster::refresh::{Outcome, Refresh, ask_nodes};
use crate::client::topology::rotation::Rotation;
use crate::client::topology::standalone::none_of;

pub(crate) use crate::client::topology::cluster::slots::slot_of;

/// The nodes that are named, and what they have said of all.
#[derive(Debug)]
pub(crate) struct Cluster {
    named: Vec<Endpoint>,
    dialer: Arc<Dialer>,
    nodes: Arc<Nodes>,
    of_named: Rotation,
    of_known: Rotation,
    known: Arc<Mutex<Known>>,
    refresh: Mutex<Option<Refresh>>,
    /// Grows with each refresh: another node is asked first each time.
    refreshes: AtomicUsize,
}

impl Cluster {
    pub(crate) fn new(named: Vec<Endpoint>, dialer: Arc<Dialer>, nodes: Arc<Nodes>) -> Self {
        Self {
            named,
            dialer,
            nodes,
            of_named: Rotation::from_any(),
            of_known: Rotation::from_any(),
            known: Arc::default(),
            refresh: Mutex::default(),
            refreshes: AtomicUsize::new(fastrand::usize(..1 << 16)),
        }
    }

    /// The primary of a slot. Waits for other nodes only where it is not known, or in doubt.
    ///
    /// # Errors
    /// No node serves the slot, or none says which one does.
    ///
    /// # Cancel safety
    /// What asks the nodes goes on, for the next call.
    pub(crate) async fn node(&self, op: &'static str, slot: u16) -> Result<Endpoint> {
        let found = lock(&self.known).find(slot);
        match found {
            Found::At(node) => return Ok(node),
            Found::AtForNow(node) => {
                self.refresh();
                return Ok(node);
            }
            Found::Nowhere => {}
            Found::InDoubt => {
                let refreshed = self.refresh().wait().await;
                // What was known before may still be right.
                if let Err(error) = refreshed
                    && lock(&self.known).node(slot).is_none()
                {
                    return Err(Error::new(error.kind(), op).with_source(error));
                }
            }
        }
        let known = lock(&self.known);
        if let Some(node) = known.node(slot) {
            return Ok(node);
        }
        if let Some(error) = known.failure() {
            return Err(Error::new(error.kind(), op).with_source(error.clone()));
        }
        let why = format!("no node of the Cluster serves slot {slot}: look at CLUSTER INFO");
        Err(Error::new(ErrorKind::Unavailable, op).because(why))
    }

    /// The refresh that is under way, or else a new one.
    fn refresh(&self) -> Outcome {
        let mut refresh = lock(&self.refresh);
        if let Some(under_way) = refresh.as_ref().and_then(Refresh::under_way) {
            return under_way;
        }
        let (dialer, nodes) = (Arc::clone(&self.dialer), Arc::clone(&self.nodes));
        let (known, asked) = (Arc::clone(&self.known), self.asked());
        let work = async move {
            let begun = Instant::now();
            let asking = ask_nodes(&dialer, &nodes, asked);
            let said = nodes.signal().unless_closed(refresh::OP, asking).await;
            match said {
                Ok(map) => {
                    nodes.keep(map.nodes());
                    lock(&known).take(map, begun);
                    Ok(())
                }
                Err(error) => {
                    lock(&known).fail(error.clone());
                    Err(error)
                }
            }
        };
        let config = self.dialer.config();
        let limit = config.request_timeout + config.connect_timeout;
        refresh.insert(Refresh::begin(limit, work)).outcome()
    }

    /// Whom to ask for the slots, in which order: those to whom a connection is open, then the others, and last those in doubt. Each time
    /// another one is asked first, since one that is cut off from the others tells what was.
    fn asked(&self) -> Vec<Endpoint> {
        let mut asked = self.nodes.connected();
        asked.sort_unstable();
        let known = lock(&self.known);
        let mut others: Vec<Endpoint> = known.nodes().to_vec();
        others.extend(self.named.iter().cloned());
        others.retain(|node| !asked.contains(node));
        let turn = self.refreshes.fetch_add(1, Ordering::Relaxed);
        for group in [&mut asked, &mut others] {
            let first = turn.checked_rem(group.len()).unwrap_or_default();
            group.rotate_left(first);
        }
        for node in others {
            if !asked.contains(&node) {
                asked.push(node);
            }
        }
        asked.sort_by_key(|node| known.is_doubted(node));
        asked
    }

    /// Connects to a node. One that is a replica now answers with where its slots are.
    pub(crate) async fn open(&self, op: &'static str, node: &Endpoint) -> Result<Link> {
        self.dialer.dial(op, node, Purpose::Commands).await
    }

    /// Connects to the first node that is there: what is published at one of them is told at all.
    pub(crate) async fn open_any(&self, op: &'static str, purpose: Purpose) -> Result<Link> {
        let known = lock(&self.known).nodes().to_vec();
        let others = self.named.iter().filter(|named| !known.contains(named));
        let others: Vec<Endpoint> = others.cloned().collect();
        let mut failed = Vec::new();
        for turn in self
            .of_known
            .turns(&known)
            .chain(self.of_named.turns(&others))
        {
            match self.dialer.dial(op, turn.server(), purpose.clone()).await {
                // The next one is tried the next time: this one may turn out to tell nothing.
                Ok(link) => return Ok(link),
                Err(error) => failed.push(error),
            }
        }
        Err(none_of(op, failed))
    }

    /// This node does not answer, or misses others: its slots may be elsewhere.
    pub(crate) fn doubt(&self, node: &Endpoint) {
        lock(&self.known).doubt(node);
    }

    /// Mostly one of several slots that have moved.
    pub(crate) fn note_moved(&self, slot: u16, node: &Endpoint) {
        lock(&self.known).note_moved(slot, node);
    }
}
