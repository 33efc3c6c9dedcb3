//! Between nodes and the server: every message may be late, lost or doubled, and whole nodes cut off.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::BoxFuture;
use sd_core::clock::Moment;
use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, Result};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::cut::Cut;
use super::executor::World;
use super::node::Node;

/// How messages fare in general.
#[derive(Clone, Copy, Debug)]
pub(super) struct Profile {
    pub(super) shortest: Duration,
    pub(super) usual: Duration,
    /// The share of messages that take up to `longest`.
    pub(super) slow: f64,
    pub(super) longest: Duration,
    pub(super) lost: f64,
    pub(super) doubled: f64,
}

impl Profile {
    pub(super) const CALM: Self = Self {
        shortest: Duration::from_micros(100),
        usual: Duration::from_millis(5),
        slow: 0.0,
        longest: Duration::ZERO,
        lost: 0.0,
        doubled: 0.0,
    };

    pub(super) fn draw(rng: &mut Rng, ttl: Duration) -> Self {
        let of = |rng: &mut Rng, shares: [f64; 3]| shares[rng.usize(..3)];
        Self {
            shortest: Duration::from_micros(50),
            usual: ttl.mul_f64(of(rng, [0.001, 0.005, 0.05])),
            slow: of(rng, [0.0, 0.02, 0.2]),
            longest: ttl.mul_f64(of(rng, [0.3, 1.0, 2.0])),
            lost: of(rng, [0.0, 0.01, 0.1]),
            doubled: of(rng, [0.0, 0.02, 0.2]),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Network {
    world: World,
    conditions: Arc<Mutex<Conditions>>,
}

#[derive(Debug)]
struct Conditions {
    profile: Profile,
    cuts: BTreeMap<usize, Cut>,
    down: bool,
    frozen_until: Option<Moment>,
    /// Cancelled when the server goes down: what it was about to answer is lost.
    run: CancellationToken,
}

/// What the network does with one call.
struct Fate {
    there: Duration,
    back: Duration,
    request_lost: bool,
    reply_lost: bool,
    doubled_after: Option<Duration>,
    /// How long it takes until a loss shows as a broken connection; if `None`, it never does.
    breaks_after: Option<Duration>,
}

/// How long it takes at most until a connection is known to be broken.
const LONGEST_SILENCE: Duration = Duration::from_secs(5);

/// What a server does for a call: made again for each message that arrives.
pub(super) type Request<T> = Arc<dyn Fn() -> BoxFuture<'static, Result<T>> + Send + Sync>;

/// Something got lost on its way.
struct Lost;

impl Network {
    pub(super) fn new(world: World, profile: Profile) -> Self {
        Self {
            world,
            conditions: Arc::new(Mutex::new(Conditions {
                profile,
                cuts: BTreeMap::new(),
                down: false,
                frozen_until: None,
                run: CancellationToken::new(),
            })),
        }
    }

    fn conditions(&self) -> MutexGuard<'_, Conditions> {
        // Every change is a single assignment.
        lock(&self.conditions)
    }

    pub(super) fn set_profile(&self, profile: Profile) {
        self.conditions().profile = profile;
    }

    pub(super) fn cut(&self, node: Node, cut: Cut) {
        self.conditions().cuts.insert(node.0, cut);
    }

    pub(super) fn heal(&self, node: Node) {
        self.conditions().cuts.remove(&node.0);
    }

    pub(super) fn heal_all(&self) {
        self.conditions().cuts.clear();
    }

    pub(super) fn take_down(&self) {
        let run = {
            let mut conditions = self.conditions();
            conditions.down = true;
            conditions.run.clone()
        };
        run.cancel();
    }

    pub(super) fn bring_up(&self) {
        let mut conditions = self.conditions();
        conditions.down = false;
        conditions.run = CancellationToken::new();
    }

    pub(super) fn freeze(&self, until: Moment) {
        self.conditions().frozen_until = Some(until);
    }

    pub(super) fn thaw(&self) {
        self.conditions().frozen_until = None;
    }

    /// How long a message takes.
    pub(super) fn delay(&self) -> Duration {
        let profile = self.conditions().profile;
        let longest = if self.world.chance(profile.slow) {
            profile.longest
        } else {
            profile.usual
        };
        self.world
            .between(profile.shortest..=longest.max(profile.shortest))
    }

    fn fate(&self, waits: bool) -> Fate {
        let Profile { lost, doubled, .. } = self.conditions().profile;
        let world = &self.world;
        let breaks = waits || world.chance(0.5);
        Fate {
            there: self.delay(),
            back: self.delay(),
            request_lost: world.chance(lost),
            reply_lost: world.chance(lost),
            doubled_after: world.chance(doubled).then(|| self.delay() * 2),
            breaks_after: breaks.then(|| world.between(Duration::ZERO..=LONGEST_SILENCE)),
        }
    }

    fn is_cut(&self, node: Node, direction: impl Fn(&Cut) -> bool) -> bool {
        self.conditions().cuts.get(&node.0).is_some_and(direction)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.world.spawn(Node::SERVER, Box::pin(task));
    }

    /// Returns when the server works on.
    async fn server_works(&self) -> Result<CancellationToken, Lost> {
        loop {
            let (run, frozen_until) = {
                let conditions = self.conditions();
                if conditions.down {
                    return Err(Lost);
                }
                (conditions.run.clone(), conditions.frozen_until)
            };
            match frozen_until.filter(|until| *until > self.world.now()) {
                Some(until) => self.world.sleep_until(until).await,
                None => return Ok(run),
            }
        }
    }

    /// Has the server do something for a node. `waits` says that the answer may take any time: then a loss always shows.
    ///
    /// Dropping the call recalls nothing that was sent, but what waits at the server is given up there.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        node: Node,
        waits: bool,
        request: Request<T>,
    ) -> Result<T> {
        let fate = self.fate(waits);
        if let Some(after) = fate.doubled_after {
            let (network, request) = (self.clone(), Arc::clone(&request));
            self.spawn(async move {
                network.world.sleep(after).await;
                // Its answer is thrown away.
                let (mut unheard, _) = oneshot::channel();
                drop(network.serve(node, &request, &mut unheard).await);
            });
        }
        let (answer, answered) = oneshot::channel();
        let network = self.clone();
        self.spawn(async move { network.carry(node, fate, request, answer).await });
        match answered.await {
            Ok(answer) => answer,
            Err(_) => pending().await,
        }
    }

    async fn carry<T: Send>(
        &self,
        node: Node,
        fate: Fate,
        request: Request<T>,
        mut answer: oneshot::Sender<Result<T>>,
    ) {
        self.world.sleep(fate.there).await;
        let served = if fate.request_lost {
            Err(Lost)
        } else {
            self.serve(node, &request, &mut answer).await
        };
        self.world.sleep(fate.back).await;
        let lost = fate.reply_lost || self.is_cut(node, |cut| cut.replies);
        // The caller may have gone.
        match (served, fate.breaks_after) {
            (Ok(served), _) if !lost => drop(answer.send(served)),
            (_, Some(after)) => {
                self.world.sleep(after).await;
                let broken = Error::new(ErrorKind::Unavailable, "simulated call");
                drop(answer.send(Err(broken)));
            }
            _ => {}
        }
    }

    async fn serve<T: Send>(
        &self,
        node: Node,
        request: &Request<T>,
        waiting: &mut oneshot::Sender<Result<T>>,
    ) -> Result<Result<T>, Lost> {
        if self.is_cut(node, |cut| cut.requests) {
            return Err(Lost);
        }
        let run = self.server_works().await?;
        let served = tokio::select! {
            biased;
            () = run.cancelled() => return Err(Lost),
            served = request() => served,
            () = waiting.closed() => return Err(Lost),
        };
        self.server_works().await?;
        Ok(served)
    }

    /// Sends a write of a candidate to the store, without waiting for an answer.
    pub(super) fn post(&self, effect: impl Fn() + Send + 'static) {
        let fate = self.fate(false);
        let world = self.world.clone();
        self.spawn(async move {
            world.sleep(fate.there).await;
            if !fate.request_lost {
                effect();
            }
            if let Some(after) = fate.doubled_after {
                world.sleep(after).await;
                effect();
            }
        });
    }

    /// Whether a message from the server gets through to a node now.
    pub(super) fn reaches(&self, node: Node) -> bool {
        let up = !self.conditions().down;
        up && !self.is_cut(node, |cut| cut.replies)
    }
}
