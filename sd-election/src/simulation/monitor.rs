//! Looks at every node after each step that it took: what it was told, and in what it believes now. Changes nothing by looking.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt;
use sd_core::Events;
use sd_core::clock::Moment;
use sd_core::port::CandidateId;
use sd_core::sync::lock;

use super::clock::Pace;
use super::executor::{Inspect, World};
use super::history::What;
use super::node::Node;
use crate::candidate::Candidate;
use crate::event::ElectionEvent;
use crate::term::Term;

#[derive(Debug)]
pub(super) struct Monitor {
    world: World,
    nodes: Mutex<BTreeMap<usize, Monitored>>,
}

#[derive(Debug)]
struct Monitored {
    events: Events<ElectionEvent>,
    pace: Pace,
    stop_margin: Duration,
    /// The participations whose terms were told, by token.
    elected: BTreeMap<u64, CandidateId>,
    beliefs: Vec<Belief>,
}

#[derive(Debug)]
struct Belief {
    term: Term,
    told: Option<(Option<Moment>, Moment)>,
}

impl Monitor {
    pub(super) fn new(world: World) -> Arc<Self> {
        Arc::new(Self {
            world,
            nodes: Mutex::default(),
        })
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<usize, Monitored>> {
        // Whatever is missed by a panic is missed after the panic was reported.
        lock(&self.nodes)
    }

    pub(super) fn add(&self, node: Node, pace: Pace, stop_margin: Duration, candidate: &Candidate) {
        let monitored = Monitored {
            events: candidate.events(),
            pace,
            stop_margin,
            elected: BTreeMap::new(),
            beliefs: Vec::new(),
        };
        self.nodes().insert(node.0, monitored);
    }

    /// The application holds this term from now on.
    pub(super) fn won(&self, node: Node, term: &Term) {
        let id = term.id();
        self.world.record(node, What::Won { id });
        if let Some(monitored) = self.nodes().get_mut(&node.0) {
            // The last one may still be extended by a driver that was stopped.
            let over = monitored.beliefs.len().saturating_sub(1);
            monitored.beliefs.drain(..over);
            monitored.beliefs.push(Belief {
                term: term.clone(),
                told: None,
            });
        }
        self.look_at(node);
    }
}

impl Inspect for Monitor {
    fn look_at(&self, node: Node) {
        let mut nodes = self.nodes();
        let Some(monitored) = nodes.get_mut(&node.0) else {
            return;
        };
        while let Some(Some(event)) = monitored.events.next().now_or_never() {
            if let Some(what) = told(&event, monitored) {
                self.world.record(node, what);
            }
        }
        let pace = monitored.pace;
        for belief in &mut monitored.beliefs {
            let until = belief.term.shared.validity.holds_until();
            let now = (until, belief.term.hand_over());
            if belief.told != Some(now) {
                belief.told = Some(now);
                let (until, hand_over) = now;
                self.world.record(
                    node,
                    What::Belief {
                        id: belief.term.id(),
                        until: until.map(|until| pace.when(until)),
                        hand_over: pace.when(hand_over),
                    },
                );
            }
        }
    }
}

fn told(event: &ElectionEvent, monitored: &mut Monitored) -> Option<What> {
    Some(match event {
        ElectionEvent::Elected {
            id,
            token,
            deadline,
            ..
        } => {
            monitored.elected.insert(token.value(), *id);
            What::Elected {
                id: *id,
                token: token.value(),
                deadline: monitored.pace.when(*deadline),
                hand_over: monitored.pace.when(*deadline + monitored.stop_margin),
            }
        }
        ElectionEvent::Ended { token, reason, .. } => What::Ended {
            id: monitored.elected.get(&token.value()).copied(),
            token: token.value(),
            reason: reason.as_str(),
        },
        ElectionEvent::Lost { reason } => What::Lost {
            reason: reason.as_str(),
        },
        ElectionEvent::AtRisk { .. } => What::AtRisk,
        ElectionEvent::Recovered { .. } => What::Recovered,
        ElectionEvent::Waiting { .. } | ElectionEvent::Taking | ElectionEvent::Missed { .. } => {
            return None;
        }
    })
}
