//! One server or cluster with its candidates, observers and everything between them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use sd_core::port::Safety;

use crate::Result;
use crate::child::{Order, connect};
use crate::history::{At, Election, Event};
use crate::plan::Plan;
use crate::process::Role;
use crate::pulse::Pulse;
use crate::register::Register;
use crate::scene::{Chronicle, RUN, Scene};
use crate::seat::{Seat, Starter};
use crate::servers::Servers;
use crate::story::Promise;

/// Enough that one of them can be disturbed while another one takes over from the leader.
const NODES: usize = 3;

/// A running site. Dropping it kills everything.
pub(crate) struct Site {
    /// For the report: `etcd 3.6.16, 3 members`.
    pub(crate) label: String,
    pub(crate) plan: Plan,
    pub(crate) servers: Servers,
    pub(crate) nodes: Vec<Seat>,
    pub(crate) observer: Seat,
    pub(crate) chronicle: Chronicle,
    pub(crate) safety: Safety,
    register: Register,
    _pulse: Pulse,
    /// Where the processes log.
    folder: PathBuf,
}

impl Site {
    pub(crate) async fn open(plan: &Plan, folder: &Path, rng: &mut Rng) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let servers = Servers::launch(plan).await?;
        let addresses = servers.addresses();
        let version = servers.operator().await?.version().await?;
        let label = plan.label(&version);
        let register = Register::start().await?;
        let chronicle = Chronicle::begin();
        let mut seats = Vec::new();
        let starter = Starter {
            plan,
            register: Some(register.address()),
            chronicle: &chronicle,
            folder,
        };
        for seat in seats_of(NODES) {
            seats.push(Seat::open(&starter, seat, &addresses, None, rng.u64(..)).await?);
        }
        let observer = seats.pop().ok_or("no observer")?;
        let endpoints = addresses
            .iter()
            .map(|address| plan.backend.endpoint(*address));
        let registry = connect(plan.backend, endpoints.collect(), plan.lock_delay)?;
        let safety = registry.elector()?.into_any().safety().await?;
        registry.close().await?;
        chronicle.tell(RUN, Event::Begun);
        Ok(Self {
            label,
            plan: plan.clone(),
            servers,
            nodes: seats,
            observer,
            safety,
            register,
            _pulse: Pulse::start(chronicle.clone()),
            chronicle,
            folder: folder.to_owned(),
        })
    }

    pub(crate) fn ttl(&self) -> Duration {
        self.plan.backend.ttl()
    }

    pub(crate) fn tell(&self, event: Event) {
        self.chronicle.tell(RUN, event);
    }

    /// The seat of the process that leads the election now.
    pub(crate) fn leader(&self, election: Election) -> Option<usize> {
        let scene = self.chronicle.scene();
        let leader = scene.leader(election)?;
        self.nodes
            .iter()
            .position(|seat| seat.process.name() == leader)
    }

    /// Waits until each of our elections has a leader, after this moment. Gives up long after there should have been one, and tells.
    pub(crate) async fn wait_for_leaders(&self) {
        let since = At::now();
        for election in Election::OURS {
            let patience = self.promise().led_within(election) * 2;
            let is_led = |scene: &Scene| scene.is_led_since(election, since);
            if !self.chronicle.wait_until(patience, is_led).await {
                self.tell(Event::NoneLeads { election, since });
            }
        }
    }

    /// What its candidates may rely on.
    pub(crate) fn promise(&self) -> Promise {
        Promise {
            failover_within: self.safety.failover_within(self.ttl()),
            takeover_delay: self.ttl(),
            fair: self.safety.fair,
        }
    }

    /// kill -9, and a new process in its place.
    pub(crate) async fn replace(&mut self, seat: usize, seed: u64) -> Result<()> {
        let starter = Starter {
            plan: &self.plan,
            register: Some(self.register.address()),
            chronicle: &self.chronicle,
            folder: &self.folder,
        };
        self.nodes[seat].replace(&starter, seed).await
    }

    pub(crate) fn freeze(&self, seat: usize) -> Result<()> {
        self.nodes[seat].freeze(&self.chronicle)
    }

    pub(crate) fn thaw(&self, seat: usize) -> Result<()> {
        self.nodes[seat].thaw(&self.chronicle)
    }

    /// A candidate or observer that ended by itself makes the run worthless.
    pub(crate) fn check_processes(&mut self) -> Result<()> {
        for seat in self.nodes.iter_mut().chain([&mut self.observer]) {
            seat.process.check_runs()?;
        }
        Ok(())
    }

    pub(crate) async fn order(&mut self, order: Order) -> Result<()> {
        for seat in &mut self.nodes {
            seat.process.order(order).await?;
        }
        Ok(())
    }

    /// Notes what the register has seen and lets all processes end.
    pub(crate) async fn close(self) -> Result<(Chronicle, Servers)> {
        for seat in self.nodes.into_iter().chain([self.observer]) {
            seat.process.finish().await?;
        }
        self.chronicle.extend(self.register.take_lines());
        Ok((self.chronicle, self.servers))
    }
}

/// The candidates, then the observer.
fn seats_of(nodes: usize) -> impl Iterator<Item = (String, Role)> {
    let nodes = (1..=nodes).map(|seat| (format!("n{seat}"), Role::Node));
    nodes.chain([("observer".to_owned(), Role::Observer)])
}
