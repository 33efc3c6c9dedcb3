//! One endpoint: where it is, its connections, and what happened to it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use http::uri::{Authority, Scheme};
use sd_core::balance::Load;
use sd_core::sync::lock;
use sd_core::{Address, Incarnation, Instance, InstanceId};
use serde::Serialize;
use tokio::time::Instant;

use crate::connection::Connection;

/// One run of an instance at one address, with what every call to it needs ready-made.
#[derive(Debug)]
pub(crate) struct Target {
    id: InstanceId,
    incarnation: Incarnation,
    label: Arc<str>,
    scheme: Scheme,
    authority: Authority,
    counters: CachePadded<Counters>,
    /// What the policy keeps of its calls.
    load: Option<Arc<dyn Load>>,
}

/// What happened at one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    calls: AtomicU64,
    sent_again: AtomicU64,
    errors: AtomicU64,
}

impl Target {
    /// `origin` replaces the scheme and authority that calls carry.
    pub(crate) fn new(
        instance: &Instance,
        scheme: &Scheme,
        origin: Option<&(Scheme, Authority)>,
        load: Option<Arc<dyn Load>>,
    ) -> Self {
        let (scheme, authority) = origin.cloned().unwrap_or_else(|| {
            let authority = match instance.endpoint().address() {
                Address::Tcp { .. } => instance.endpoint().to_string().parse().ok(),
                // What gRPC sends where there is no host.
                _ => None,
            };
            let localhost = Authority::from_static("localhost");
            (scheme.clone(), authority.unwrap_or(localhost))
        });
        Self {
            id: instance.id().clone(),
            incarnation: instance.incarnation(),
            label: instance.endpoint().to_string().into(),
            scheme,
            authority,
            counters: CachePadded::default(),
            load,
        }
    }

    pub(crate) fn id(&self) -> &InstanceId {
        &self.id
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The address, for people.
    pub(crate) fn label(&self) -> Arc<str> {
        Arc::clone(&self.label)
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme.clone()
    }

    pub(crate) fn authority(&self) -> Authority {
        self.authority.clone()
    }

    pub(crate) fn load(&self) -> Option<&Arc<dyn Load>> {
        self.load.as_ref()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Counters {
    /// An attempt was given to a connection.
    pub(crate) fn call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// An attempt failed here, and the call goes on.
    pub(crate) fn sent_again(&self) {
        self.sent_again.fetch_add(1, Ordering::Relaxed);
    }

    /// An attempt got no answer, or that the server cannot take it now.
    pub(crate) fn error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> (u64, u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (
            read(&self.calls),
            read(&self.sent_again),
            read(&self.errors),
        )
    }
}

/// The state of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndpointState {
    /// Connecting for the first time, or again after a good connection broke.
    Connecting,
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
    pub(crate) const ALL: [Self; 5] = [
        Self::Connecting,
        Self::Ready,
        Self::NotReady,
        Self::Failing,
        Self::Draining,
    ];

    /// The state of a member of the service.
    pub(crate) fn of(instance: &Instance, connected: bool, failing: bool) -> Self {
        match (instance.is_ready(), connected, failing) {
            (false, _, _) => Self::NotReady,
            (true, true, _) => Self::Ready,
            (true, false, true) => Self::Failing,
            (true, false, false) => Self::Connecting,
        }
    }

    /// A stable name for metrics, logs and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
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
        let mut open = false;
        if let [only] = connections.as_slice() {
            if only.enter() {
                return Place::On(Arc::clone(only));
            }
            open = only.is_open();
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
            open |= connections.iter().any(|connection| connection.is_open());
        }
        if open {
            let ask = !self.growing.swap(true, Ordering::Relaxed);
            Place::Full { ask }
        } else {
            Place::None
        }
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
