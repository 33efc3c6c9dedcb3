//! What goes wrong, and when.

use std::sync::Arc;
use std::time::Duration;

use sd_core::clock::Moment;
use sd_core::port::CandidateId;

use super::cut::Cut;
use super::executor::{Stalls, World};
use super::history::What;
use super::network::{Network, Profile};
use super::node::Node;
use super::schedule::{Class, Schedule};
use super::server::Server;

/// Starts and restarts candidates' nodes.
pub(super) trait Nodes: Send + Sync {
    /// The nodes that run.
    fn running(&self) -> Vec<Node>;
    /// This one was killed.
    fn killed(&self, node: Node);
    /// Starts another candidate in place of one that was killed.
    fn restart(&self);
}

#[derive(Clone, Copy)]
enum Fault {
    Stop,
    Kill,
    CutOff,
    ServerDown,
    ServerFrozen,
    Storm,
    RemoveWaiting,
    Remove,
    EndLease,
    /// Cuts off the leader, and removes its entry.
    Depose,
}

const EVERYWHERE: &[Fault] = &[
    Fault::Stop,
    Fault::Stop,
    Fault::Kill,
    Fault::CutOff,
    Fault::CutOff,
    Fault::ServerDown,
    Fault::ServerFrozen,
    Fault::Storm,
    Fault::RemoveWaiting,
];
const BY_OPERATORS: &[Fault] = &[Fault::Remove, Fault::EndLease, Fault::Depose];

pub(super) struct Chaos {
    pub(super) world: World,
    pub(super) network: Network,
    pub(super) server: Arc<Server>,
    pub(super) nodes: Arc<dyn Nodes>,
    pub(super) class: Class,
    pub(super) ttl: Duration,
    pub(super) every: Duration,
    pub(super) profile: Profile,
    pub(super) calm_at: Moment,
}

impl Chaos {
    pub(super) fn new(
        world: &World,
        network: &Network,
        server: &Arc<Server>,
        nodes: Arc<dyn Nodes>,
        schedule: &Schedule,
    ) -> Arc<Self> {
        Arc::new(Self {
            world: world.clone(),
            network: network.clone(),
            server: Arc::clone(server),
            nodes,
            class: schedule.class,
            ttl: schedule.ttl,
            every: schedule.fault_every,
            profile: schedule.network,
            calm_at: Moment::ZERO + schedule.chaos,
        })
    }

    pub(super) async fn rage(self: Arc<Self>) {
        loop {
            let next = self.world.between(Duration::ZERO..=self.every * 2);
            let at = self.world.now() + next;
            if at >= self.calm_at {
                break;
            }
            self.world.sleep_until(at).await;
            self.strike();
        }
        self.world.sleep_until(self.calm_at).await;
        self.calm();
    }

    /// Ends whatever is wrong.
    fn calm(&self) {
        self.world.set_stalls(Stalls::default());
        self.world.resume_all();
        self.network.set_profile(Profile::CALM);
        self.network.heal_all();
        self.network.bring_up();
        self.network.thaw();
        self.world.record(Node::SERVER, What::Calm);
    }

    fn strike(self: &Arc<Self>) {
        let by_operator = self.class.has_operators() && self.world.chance(0.4);
        let faults = if by_operator {
            BY_OPERATORS
        } else {
            EVERYWHERE
        };
        let world = &self.world;
        let span = self.span();
        let until = world.now() + span;
        match world.pick(faults) {
            None => {}
            Some(Fault::Stop) => {
                if let Some(node) = self.victim() {
                    world.stop(node, until.min(self.calm_at));
                }
            }
            Some(Fault::Kill) => {
                if let Some(node) = self.victim().filter(|node| world.kill(*node)) {
                    world.record(node, What::Killed);
                    self.nodes.killed(node);
                    self.later(span, |chaos| chaos.nodes.restart());
                }
            }
            Some(Fault::CutOff) => {
                if let Some(node) = self.victim() {
                    let cut =
                        world.pick(&[(true, true), (true, true), (true, false), (false, true)]);
                    let (requests, replies) = cut.unwrap_or((true, true));
                    self.cut_off(node, Cut { requests, replies }, span);
                }
            }
            Some(Fault::Depose) => {
                let first = self.server.queue().first().copied();
                let owned = first.and_then(|id| Some((id, self.server.owner(id)?)));
                if let Some((id, node)) = owned {
                    let (requests, replies) = (true, true);
                    self.cut_off(node, Cut { requests, replies }, span);
                    self.server.remove(id);
                }
            }
            Some(Fault::ServerDown) => {
                world.record(Node::SERVER, What::ServerDown);
                self.network.take_down();
                let leases_restarted = world.chance(0.7);
                self.later(span / 2, move |chaos| {
                    if leases_restarted {
                        chaos.server.restart_leases();
                    }
                    chaos.network.bring_up();
                    let up = What::ServerUp { leases_restarted };
                    chaos.world.record(Node::SERVER, up);
                });
            }
            Some(Fault::ServerFrozen) => {
                world.record(Node::SERVER, What::ServerFrozen { until });
                self.network.freeze(until.min(self.calm_at));
            }
            Some(Fault::Storm) => {
                world.record(Node::SERVER, What::Storm);
                let mut profile = self.profile;
                profile.slow = 0.5;
                profile.lost = 0.3;
                profile.doubled = 0.3;
                self.network.set_profile(profile);
                let usual = self.profile;
                self.later(span, move |chaos| chaos.network.set_profile(usual));
            }
            Some(Fault::RemoveWaiting) => {
                if let Some(id) = self.entry(false) {
                    self.server.remove(id);
                }
            }
            Some(Fault::Remove) => {
                if let Some(id) = self.entry(true) {
                    self.server.remove(id);
                }
            }
            Some(Fault::EndLease) => {
                if let Some(id) = self.entry(true) {
                    self.server.end_lease(id);
                }
            }
        }
    }

    fn cut_off(self: &Arc<Self>, node: Node, cut: Cut, span: Duration) {
        self.world.record(node, What::CutOff(cut));
        self.network.cut(node, cut);
        self.later(span, move |chaos| {
            chaos.world.record(node, What::Healed);
            chaos.network.heal(node);
        });
    }

    /// Does something when that time has passed, but not once it is calm.
    fn later(self: &Arc<Self>, span: Duration, act: impl FnOnce(&Self) + Send + 'static) {
        let chaos = Arc::clone(self);
        self.world.spawn(
            Node::SERVER,
            Box::pin(async move {
                chaos.world.sleep(span).await;
                if chaos.world.now() < chaos.calm_at {
                    act(&chaos);
                }
            }),
        );
    }

    /// Short, around the time-to-live, or far longer.
    fn span(&self) -> Duration {
        let share = self.world.pick(&[0.1, 0.5, 1.0, 1.0, 3.0]).unwrap_or(1.0);
        let longest = self.ttl.mul_f64(share * 1.3);
        self.world.between(self.ttl.mul_f64(share * 0.7)..=longest)
    }

    /// Mostly the leader's node.
    fn victim(&self) -> Option<Node> {
        let running = self.nodes.running();
        let leader = self.server.queue().first().copied();
        let leader = leader.and_then(|id| self.server.owner(id));
        match leader.filter(|leader| running.contains(leader)) {
            Some(leader) if self.world.chance(0.6) => Some(leader),
            _ => self.world.pick(&running),
        }
    }

    fn entry(&self, with_leader: bool) -> Option<CandidateId> {
        let queue = self.server.queue();
        let waiting = queue.get(1..).unwrap_or_default();
        match queue.first() {
            Some(leader) if with_leader && self.world.chance(0.7) => Some(*leader),
            _ => self.world.pick(waiting),
        }
    }
}
