//! The connections for commands, one for each place.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use sd_backend::{CloseSignal, SharedConnection};
use sd_core::Endpoint;
use sd_core::sync::lock;

use crate::client::connection::Link;
use crate::client::topology::Place;

/// More places than a Cluster has nodes. All are forgotten then.
const MOST_PLACES: usize = 2000;

/// The connection of each place that was asked for.
pub(crate) struct Nodes {
    by_place: Mutex<HashMap<Place, Arc<SharedConnection<Link>>>>,
    signal: CloseSignal,
}

impl Nodes {
    /// None yet. They are let go when the backend is closed.
    pub(crate) fn new(signal: &CloseSignal) -> Self {
        Self {
            by_place: Mutex::default(),
            signal: signal.clone(),
        }
    }

    /// The end of the backend.
    pub(crate) fn signal(&self) -> &CloseSignal {
        &self.signal
    }

    /// The connection of a place, which may have to be made.
    pub(crate) fn at(&self, place: &Place) -> Arc<SharedConnection<Link>> {
        let mut by_place = lock(&self.by_place);
        if by_place.len() >= MOST_PLACES && !by_place.contains_key(place) {
            by_place.clear();
        }
        let shared = by_place
            .entry(place.clone())
            .or_insert_with(|| Arc::new(SharedConnection::new(&self.signal)));
        Arc::clone(shared)
    }

    /// The nodes of a Cluster to which a connection is open.
    pub(crate) fn connected(&self) -> Vec<Endpoint> {
        let by_place = lock(&self.by_place);
        let connected = by_place
            .iter()
            .filter(|(_, shared)| shared.current().is_some());
        connected.filter_map(|(place, _)| place.clone()).collect()
    }

    /// Lets go of the connections to all other nodes, which have left the Cluster or have no slots. What is under way there is not cut off.
    pub(crate) fn keep(&self, nodes: &[Endpoint]) {
        let is_kept = |node: &Endpoint| nodes.contains(node);
        lock(&self.by_place).retain(|place, _| place.as_ref().is_none_or(is_kept));
    }
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nodes")
    }
}
