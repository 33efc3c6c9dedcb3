//! One schedule, from its seed to its report.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use sd_core::clock::Moment;
use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, Registry, RegistryConfig, Result};
use tokio::runtime::{Builder, Runtime};
use tracing::Dispatch;

use super::application::{Application, NodeSpawner, Store};
use super::backend::SimulatedBackend;
use super::clock::NodeClock;
use super::executor::World;
use super::faults::{Chaos, Nodes};
use super::history::{History, What};
use super::invariants::facts::Facts;
use super::invariants::remains::all_led_within;
use super::invariants::violation::Violation;
use super::monitor::Monitor;
use super::network::Network;
use super::node::Node;
use super::schedule::Schedule;
use super::server::{Server, SimulatedElector};
use super::{invariants, observers};
use crate::candidate::Candidate;
use crate::flaw::{self, Flaw};

/// The longest time for which a leave may be on its way and wait to be tried again, once all is well.
const LEFT_AFTER: Duration = Duration::from_secs(12);
/// An observer whose feed fell silent knows it after this long.
const OBSERVED_AFTER: Duration = Duration::from_secs(60);

/// The result of one schedule.
#[derive(Debug)]
#[must_use]
pub struct Report {
    seed: u64,
    schedule: Schedule,
    history: History,
    violations: Vec<Violation>,
    facts: Facts,
}

impl Report {
    /// The seed that the schedule was made from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The invariants that were broken, and how.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Everything that happened, one line each.
    pub fn history(&self) -> impl Iterator<Item = String> {
        self.history.iter().map(ToString::to_string)
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.schedule)?;
        for record in &self.history {
            writeln!(f, "{record}")?;
        }
        for violation in &self.violations {
            writeln!(f, "violated: {violation}")?;
        }
        Ok(())
    }
}

/// Runs the schedule of this seed.
pub fn run(seed: u64) -> Report {
    run_with(seed, None)
}

/// Runs the schedule of this seed with a mistake in the code.
pub fn run_flawed(seed: u64, flaw: Flaw) -> Report {
    run_with(seed, Some(flaw))
}

fn run_with(seed: u64, flaw: Option<Flaw>) -> Report {
    let mut rng = Rng::with_seed(seed);
    let schedule = Schedule::draw(&mut rng);
    // The code under test draws from the thread's generator.
    fastrand::seed(rng.u64(..));
    let world = World::new(rng.fork());
    let _flawed = flaw.map(flaw::put_in);
    let ran = tracing::dispatcher::with_default(&Dispatch::none(), || {
        catch_unwind(AssertUnwindSafe(|| {
            let ran = Run::new(&world, &schedule, rng).map(|run| run.to_the_end());
            world.clear();
            ran
        }))
    });
    let history = world.take_history();
    let (mut violations, mut facts) = invariants::check(&schedule, &history);
    facts.counts.insert("steps of tasks", world.polls());
    let broken = |text| Violation::new("completes", world.now(), text);
    match ran {
        Ok(Ok(())) => {}
        Ok(Err(error)) => violations.push(broken(error.report().to_string())),
        Err(panic) => violations.push(broken(format!("panicked: {}", message(&*panic)))),
    }
    if world.is_exhausted() {
        violations.push(broken("does not come to rest".to_owned()));
    }
    Report {
        seed,
        schedule,
        history,
        violations,
        facts,
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message")
}

struct Run<'a> {
    world: &'a World,
    schedule: &'a Schedule,
    server: Arc<Server>,
    candidates: Arc<Candidates>,
}

impl<'a> Run<'a> {
    fn new(world: &'a World, schedule: &'a Schedule, mut rng: Rng) -> Result<Self> {
        world.set_stalls(schedule.stalls);
        let network = Network::new(world.clone(), schedule.network);
        let server = Server::new(world.clone(), schedule)?;
        let monitor = Monitor::new(world.clone());
        world.inspect_with(Arc::clone(&monitor) as _);
        for _ in 0..schedule.observers {
            let pace = schedule.draw_pace(&mut rng);
            observers::start(world, &network, &server, pace, schedule.ttl)?;
        }
        let candidates = Arc::new(Candidates {
            world: world.clone(),
            network: network.clone(),
            server: Arc::clone(&server),
            store: Arc::default(),
            monitor,
            schedule: schedule.clone(),
            idle: idle()?,
            rng: Mutex::new(rng),
            finished: Mutex::default(),
        });
        for _ in 0..schedule.candidates {
            candidates.start()?;
        }
        let nodes = Arc::new(Arc::clone(&candidates));
        let chaos = Chaos::new(world, &network, &server, nodes, schedule);
        world.spawn(Node::SERVER, Box::pin(chaos.rage()));
        Ok(Self {
            world,
            schedule,
            server,
            candidates,
        })
    }

    fn to_the_end(&self) {
        let Schedule {
            chaos,
            granted,
            slowest,
            ..
        } = self.schedule;
        let slow = |span: Duration| span.div_f64(*slowest);
        let calm_at = Moment::ZERO + *chaos;
        self.rest_until(calm_at + slow(LEFT_AFTER));
        let limit = all_led_within(self.schedule);
        self.world
            .run(calm_at + limit, &|| self.candidates.all_finished());
        let gone_by = self.world.now() + slow(*granted) * 4;
        self.rest_until(gone_by.max(calm_at + slow(OBSERVED_AFTER)));
    }

    /// Waits, and looks what is left.
    fn rest_until(&self, at: Moment) {
        self.world.run(at, &|| false);
        let mut entries = self.server.queue();
        entries.retain(|id| !self.server.is_excused(*id));
        let tasks = self.candidates.tasks();
        let remains = What::Remains { entries, tasks };
        self.world.record(Node::SERVER, remains);
    }
}

fn idle() -> Result<Runtime> {
    let runtime = Builder::new_current_thread().enable_time().build();
    runtime.map_err(|error| Error::new(ErrorKind::Unavailable, "simulate").with_source(error))
}

/// The nodes of candidates.
struct Candidates {
    world: World,
    network: Network,
    server: Arc<Server>,
    store: Arc<Store>,
    monitor: Arc<Monitor>,
    schedule: Schedule,
    /// Nothing ever runs on it.
    idle: Runtime,
    rng: Mutex<Rng>,
    /// Whether each has finished. Those that were killed are not here.
    finished: Mutex<BTreeMap<usize, bool>>,
}

impl Candidates {
    fn finished(&self) -> MutexGuard<'_, BTreeMap<usize, bool>> {
        // Every change is a single insertion or assignment.
        lock(&self.finished)
    }

    fn start(self: &Arc<Self>) -> Result<()> {
        let node = self.world.add_node();
        let mut rng = lock(&self.rng);
        let pace = self.schedule.draw_pace(&mut rng);
        let ttl = self.schedule.draw_ttl(&mut rng);
        drop(rng);
        let stop_margin = self.schedule.stop_margin(ttl);
        let lateness = self.schedule.lateness;
        let clock = NodeClock::new(self.world.clone(), node, pace, lateness);
        let elector = SimulatedElector::connect(&self.server, &self.network, node, clock.clone())?;
        let backend = Arc::new(SimulatedBackend(elector));
        let config = RegistryConfig::default().with_clock(Arc::new(clock.clone()));
        let registry = Registry::with_config(backend, config);
        let candidate = Candidate::builder(&registry, &self.server.name)
            .value(format!("node {}", node.0))
            .ttl(ttl)
            .config(self.schedule.config.clone())
            .spawner(Arc::new(NodeSpawner {
                world: self.world.clone(),
                node,
            }))
            .build()?;
        self.monitor.add(node, pace, stop_margin, &candidate);
        let application = Application {
            world: self.world.clone(),
            network: self.network.clone(),
            node,
            clock,
            server: Arc::clone(&self.server),
            store: Arc::clone(&self.store),
            monitor: Arc::clone(&self.monitor),
            candidate,
            registry,
            idle: self.idle.handle().clone(),
            ttl,
            stop_margin,
            certainty: self.schedule.certainty,
            calm_at: Moment::ZERO + self.schedule.chaos,
        };
        self.finished().insert(node.0, false);
        let candidates = Arc::clone(self);
        let life = async move {
            application.live().await;
            let is_calm = candidates.world.now() > Moment::ZERO + candidates.schedule.chaos;
            if !is_calm {
                // It has closed its registry.
                candidates.restart();
            }
            candidates.finished().insert(node.0, true);
        };
        self.world.spawn(node, Box::pin(life));
        Ok(())
    }

    fn all_finished(&self) -> bool {
        self.finished().values().all(|finished| *finished)
    }

    /// How many tasks they have.
    fn tasks(&self) -> usize {
        let finished = self.finished();
        finished
            .keys()
            .map(|node| self.world.tasks(Node(*node)))
            .sum()
    }
}

impl Nodes for Arc<Candidates> {
    fn running(&self) -> Vec<Node> {
        self.finished().keys().copied().map(Node).collect()
    }

    fn killed(&self, node: Node) {
        self.finished().remove(&node.0);
    }

    fn restart(&self) {
        if let Err(error) = self.start() {
            let failed = What::CampaignFailed(error.kind());
            self.world.record(Node::SERVER, failed);
        }
    }
}
