//! One endpoint: where it is, its connections, and what happened to it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use sd_core::Instance;
use sd_core::sync::lock;
use serde::Serialize;
use tokio::time::Instant;

use crate::connection::Connection;
use crate::target::Target;

/// The state of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndpointState {
    /// Connecting for the first time, or again after a good connection broke.
    Connecting,
    /// Connected, but it turned away several calls in a row: it gets none for a while.
    Ejected,
    /// Connected. Calls go to it while its tier and zone are the ones in use.
    Ready,
    /// The instance is marked not ready: it wants no calls.
    NotReady,
    /// The last attempt to connect failed; another one follows.
    Failing,
    /// Removed from the service; calls in flight continue.
    Draining,
}

impl EndpointState {
    /// Every state, in the order of their numbers.
    pub(crate) const ALL: [Self; 6] = [
        Self::Connecting,
        Self::Ejected,
        Self::Ready,
        Self::NotReady,
        Self::Failing,
        Self::Draining,
    ];

    /// The state of a member of the service.
    pub(crate) fn of(instance: &Instance, connected: bool, failing: bool, ejected: bool) -> Self {
        match (instance.is_ready(), connected, failing) {
            (false, _, _) => Self::NotReady,
            (true, true, _) if ejected => Self::Ejected,
            (true, true, _) => Self::Ready,
            (true, false, true) => Self::Failing,
            (true, false, false) => Self::Connecting,
        }
    }

    /// A stable name for metrics, logs and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Ejected => "ejected",
            Self::Ready => "ready",
            Self::NotReady => "not_ready",
            Self::Failing => "failing",
            Self::Draining => "draining",
        }
    }
}

impl fmt::Display for EndpointState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How many endpoints are in which state.
#[derive(Debug, Default)]
pub(crate) struct StateCounts([usize; EndpointState::ALL.len()]);

impl StateCounts {
    /// An endpoint went from one state to another; `None` is not to be there.
    pub(crate) fn moved(&mut self, from: Option<EndpointState>, to: Option<EndpointState>) {
        for (count, state) in self.0.iter_mut().zip(EndpointState::ALL) {
            *count += usize::from(to == Some(state));
            *count -= usize::from(from == Some(state));
        }
    }

    pub(crate) fn of(&self, state: EndpointState) -> usize {
        self.0.get(state as usize).copied().unwrap_or(0)
    }
}

/// Where an endpoint stands, since when and why.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) state: EndpointState,
    pub(crate) since: Instant,
    pub(crate) reason: Option<Arc<str>>,
}

/// An endpoint's connections, as the driver makes them and calls use them.
#[derive(Debug)]
pub(crate) struct Subchannel {
    target: Arc<Target>,
    /// Open ones, and those whose last calls are still in flight.
    connections: ArcSwap<Vec<Arc<Connection>>>,
    /// A call asked for one more connection and the driver has not concluded on it.
    growing: AtomicBool,
    standing: Mutex<Standing>,
}

/// What asking an endpoint for a place came to.
pub(crate) enum Place {
    On(Arc<Connection>),
    /// All its connections carry as many calls as they may. Says whether no other call has asked for another one yet.
    Full {
        ask: bool,
    },
    /// It has no open connection.
    None,
}

impl Subchannel {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target: Arc::new(target),
            connections: ArcSwap::default(),
            growing: AtomicBool::new(false),
            standing: Mutex::new(Standing {
                state: EndpointState::Connecting,
                since: Instant::now(),
                reason: None,
            }),
        }
    }

    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Takes a place on the open connection with the fewest calls. Each place must be left again.
    pub(crate) fn enter(&self) -> Place {
        let connections = self.connections.load();
        if let [only] = connections.as_slice() {
            if only.enter() {
                return Place::On(Arc::clone(only));
            }
        } else {
            // Another call may take the last place between the look and the try.
            while let Some(best) = connections
                .iter()
                .filter(|connection| connection.has_room())
                .min_by_key(|connection| connection.calls())
            {
                if best.enter() {
                    return Place::On(Arc::clone(best));
                }
            }
        }
        let mut open = connections.iter().filter(|one| one.is_open()).peekable();
        if open.peek().is_none() {
            return Place::None;
        }
        // Another connection helps against full ones, but not while it is unknown whether the server is there.
        let ask = !open.any(|one| one.is_doubted()) && !self.growing.swap(true, Ordering::Relaxed);
        Place::Full { ask }
    }

    /// Lets calls ask for another connection again.
    pub(crate) fn may_grow(&self) {
        self.growing.store(false, Ordering::Relaxed);
    }

    /// Keeps calls from asking until [`may_grow`](Self::may_grow).
    pub(crate) fn may_not_grow(&self) {
        self.growing.store(true, Ordering::Relaxed);
    }

    pub(crate) fn connections(&self) -> arc_swap::Guard<Arc<Vec<Arc<Connection>>>> {
        self.connections.load()
    }

    /// Only the driver calls this.
    pub(crate) fn add(&self, connection: Arc<Connection>) {
        let mut connections = self.connections.load_full().as_ref().clone();
        connections.push(connection);
        self.connections.store(Arc::new(connections));
    }

    /// Only the driver calls this.
    pub(crate) fn remove(&self, gone: &Arc<Connection>) {
        let mut connections = self.connections.load_full().as_ref().clone();
        connections.retain(|connection| !Arc::ptr_eq(connection, gone));
        self.connections.store(Arc::new(connections));
    }

    pub(crate) fn standing(&self) -> Standing {
        lock(&self.standing).clone()
    }

    /// Notes where it stands. A reason stays while the state does.
    pub(crate) fn stand(&self, state: EndpointState, reason: Option<Arc<str>>) {
        let mut standing = lock(&self.standing);
        if standing.state != state {
            standing.since = Instant::now();
            standing.reason = None;
        }
        standing.state = state;
        standing.reason = reason.or(standing.reason.take());
    }
}
