//! Who picks: each keeps a set of servers in its own way and hands out one after the other.

use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};

use arc_swap::{ArcSwap, Cache};
use sd_core::Instance;
use sd_core::balance::{CallInfo, Choice, LeastRequest, Listed, Policy, RoundRobin, Selector};
use tower::Service;
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::Load;

/// Picks so many times, on one thread.
pub(super) type Picks = Box<dyn FnMut(u32) + Send>;

/// One way to pick from one set.
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) ours: bool,
    /// What a pick gives back, and what else it does.
    pub(super) gives: &'static str,
    /// Whether threads may share the set.
    pub(super) shared: bool,
    /// A picker for one more thread.
    pub(super) picks: Box<dyn Fn() -> Picks>,
    /// Publishes the set again while others pick, where that can be.
    pub(super) publish: Option<Box<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contender")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// All of them, for a set of this size.
pub(super) fn all(size: usize) -> Vec<Contender> {
    let servers: Arc<[Arc<Server>]> = (0..size).map(|nth| Arc::new(Server::new(nth))).collect();
    let (even, uneven) = (instances(size, 1), instances(size, 5));
    vec![
        policy("sd-core round robin", RoundRobin::new(), &even),
        policy("sd-core weighted", RoundRobin::new(), &uneven),
        policy("sd-core least request", LeastRequest::new(), &even),
        published(&servers, &even),
        swapped(Arc::clone(&servers)),
        locked(servers),
        tower_p2c(size),
    ]
}

/// What is picked. As large as what a balancer keeps for a server, so that picks touch as much memory.
#[derive(Debug)]
struct Server {
    name: String,
}

impl Server {
    fn new(nth: usize) -> Self {
        Self {
            name: format!("10.0.{}.{}:50051", nth / 256, nth % 256),
        }
    }
}

fn repeat(mut pick: impl FnMut() + Send + 'static) -> Picks {
    Box::new(move |times| {
        for _ in 0..times {
            pick();
        }
    })
}

/// So many instances, whose weights go up to `heaviest`.
fn instances(size: usize, heaviest: u16) -> Vec<Arc<Instance>> {
    let weights = (1..=heaviest).cycle();
    let ports = (1..=u16::MAX).cycle();
    let instances = weights.zip(ports).take(size).filter_map(|(weight, port)| {
        let instance = Instance::new("bench", format!("10.0.0.1:{port}")).ok()?;
        Some(Arc::new(instance.with_weight(weight)))
    });
    instances.collect()
}

/// What an owner of these endpoints tells, all of them connected.
fn listed(selector: &Selector, instances: &[Arc<Instance>]) -> Vec<Listed> {
    let listed = instances.iter().map(|instance| Listed {
        instance: Arc::clone(instance),
        load: selector.new_load(instance),
        usable: true,
    });
    listed.collect()
}

fn policy(name: &'static str, policy: impl Policy, instances: &[Arc<Instance>]) -> Contender {
    let mut selector = Selector::new(Arc::new(policy), None);
    let listed = listed(&selector, instances);
    selector.replace(listed);
    let choice = selector.choose();
    Contender {
        name,
        ours: true,
        gives: "an index",
        shared: true,
        picks: Box::new(move || {
            let choice = choice.clone();
            repeat(move || {
                black_box(choice.pick(&CallInfo::new(), |_| false, Some));
            })
        }),
        publish: None,
    }
}

/// What sd-grpc publishes, as far as a pick reads it: members, and the choice among them.
#[derive(Debug)]
struct Set {
    members: Members,
    choice: Choice,
}

/// Laid out in chunks, as there.
#[derive(Clone, Debug)]
struct Members {
    order: Arc<[usize]>,
    chunks: Arc<[Chunk]>,
}

type Chunk = Arc<[Option<Arc<Server>>]>;

const CHUNK: usize = 128;

impl Members {
    fn new(servers: &[Arc<Server>]) -> Self {
        let chunk = |servers: &[Arc<Server>]| servers.iter().cloned().map(Some).collect();
        Self {
            order: (0..servers.len()).collect(),
            chunks: servers.chunks(CHUNK).map(chunk).collect(),
        }
    }

    fn get(&self, index: usize) -> Option<&Arc<Server>> {
        let slot = *self.order.get(index)?;
        self.chunks.get(slot / CHUNK)?.get(slot % CHUNK)?.as_ref()
    }
}

impl Set {
    fn pick(&self) -> Option<Arc<Server>> {
        let member = |index: usize| self.members.get(index).cloned();
        self.choice.pick(&CallInfo::new(), |_| false, member)
    }
}

fn published(servers: &[Arc<Server>], instances: &[Arc<Instance>]) -> Contender {
    let mut selector = Selector::new(Arc::new(RoundRobin::new()), None);
    let listed = listed(&selector, instances);
    selector.replace(listed.clone());
    let members = Members::new(servers);
    let set = |members: &Members, choice| Set {
        members: members.clone(),
        choice,
    };
    let state = Arc::new(ArcSwap::from_pointee(set(&members, selector.choose())));
    let writer = Arc::clone(&state);
    let (selector, flips) = (Mutex::new(selector), AtomicUsize::new(0));
    Contender {
        name: "published set, sd-core round robin",
        ours: true,
        gives: "an owned `Arc`",
        shared: true,
        picks: Box::new(move || {
            let mut set = Cache::new(Arc::clone(&state));
            repeat(move || {
                black_box(set.load().pick());
            })
        }),
        publish: Some(Box::new(move || {
            let mut selector = selector.lock().unwrap_or_else(PoisonError::into_inner);
            // The last endpoint comes and goes.
            let usable = flips.fetch_add(1, Ordering::Relaxed) % 2 == 1;
            if let Some(last) = listed.last() {
                let last = Listed {
                    usable,
                    ..last.clone()
                };
                selector.update(listed.len() - 1, last);
            }
            writer.store(Arc::new(set(&members, selector.choose())));
        })),
    }
}

fn swapped(servers: Arc<[Arc<Server>]>) -> Contender {
    let state = Arc::new((
        ArcSwap::from_pointee(Arc::clone(&servers)),
        AtomicUsize::new(0),
    ));
    let writer = Arc::clone(&state);
    Contender {
        name: "arc_swap round robin",
        ours: false,
        gives: "an owned `Arc`",
        shared: true,
        picks: Box::new(move || {
            let state = Arc::clone(&state);
            repeat(move || {
                let (set, turn) = &*state;
                let set = set.load();
                let nth = turn.fetch_add(1, Ordering::Relaxed) % set.len();
                black_box(set.get(nth).cloned());
            })
        }),
        publish: Some(Box::new(move || {
            writer.0.store(Arc::new(Arc::clone(&servers)));
        })),
    }
}

fn locked(servers: Arc<[Arc<Server>]>) -> Contender {
    let state = Arc::new((RwLock::new(Arc::clone(&servers)), AtomicUsize::new(0)));
    let writer = Arc::clone(&state);
    Contender {
        name: "RwLock round robin",
        ours: false,
        gives: "an owned `Arc`",
        shared: true,
        picks: Box::new(move || {
            let state = Arc::clone(&state);
            repeat(move || {
                let (set, turn) = &*state;
                let set = set.read().unwrap_or_else(PoisonError::into_inner);
                let nth = turn.fetch_add(1, Ordering::Relaxed) % set.len();
                black_box(set.get(nth).cloned());
            })
        }),
        publish: Some(Box::new(move || {
            *writer.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&servers);
        })),
    }
}

/// Answers at once and bears no load, as the services that tonic gives to tower's balancer say of themselves.
#[derive(Debug)]
struct Idle(Server);

impl Service<()> for Idle {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        black_box(&self.0.name);
        ready(Ok(()))
    }
}

impl Load for Idle {
    type Metric = u32;

    fn load(&self) -> u32 {
        0
    }
}

fn tower_p2c(size: usize) -> Contender {
    Contender {
        name: "tower P2C",
        ours: false,
        gives: "readiness, and a call that does nothing",
        shared: false,
        picks: Box::new(move || {
            let servers: Vec<Idle> = (0..size).map(|nth| Idle(Server::new(nth))).collect();
            let mut balance = Balance::new(ServiceList::new(servers));
            repeat(move || {
                let mut context = Context::from_waker(Waker::noop());
                // A set that was just made becomes ready within a few polls.
                while balance.poll_ready(&mut context).is_pending() {}
                drop(black_box(balance.call(())));
            })
        }),
        publish: None,
    }
}
