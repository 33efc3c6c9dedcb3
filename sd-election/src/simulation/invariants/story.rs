//! The terms that a history tells of, and what else follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use sd_core::clock::Moment;
use sd_core::port::CandidateId;

use crate::simulation::history::{Record, What};
use crate::simulation::node::Node;
use crate::simulation::schedule::Schedule;

/// A term, as its node told of it.
#[derive(Clone, Debug)]
pub(super) struct Term {
    pub(super) node: Node,
    pub(super) id: CandidateId,
    pub(super) token: u64,
    /// Its entry's position in the order of joining.
    pub(super) position: Option<usize>,
    pub(super) elected: Moment,
    pub(super) deadline: Moment,
    /// Until when its application may act on it.
    pub(super) hand_over: Moment,
    /// How long its application has to stop.
    stop_margin: Duration,
    /// Whether it reached its application. It does not if that drops its campaign at this very moment.
    won: bool,
    /// When its application gave it up.
    stopped: Option<Moment>,
    /// When it was believed in.
    pub(super) beliefs: Vec<(Moment, Moment)>,
    pub(super) ended: Vec<Moment>,
}

impl Term {
    /// Whether it was not over already when it was told: a node may be stopped between deciding that it leads and telling so.
    pub(super) fn was_in_time(&self) -> bool {
        self.elected < self.deadline
    }

    fn stop_by(&mut self, at: Moment) {
        self.stopped = Some(self.stopped.map_or(at, |stopped| stopped.min(at)));
    }
}

/// A history, and what follows from it.
pub(super) struct Story<'a> {
    pub(super) schedule: &'a Schedule,
    pub(super) records: &'a [Record],
    /// In the order in which they were told.
    pub(super) terms: Vec<Term>,
    pub(super) calm_at: Moment,
    pub(super) end: Moment,
    pub(super) killed: BTreeMap<Node, Moment>,
    /// Nodes that have begun to close their registries.
    closed: BTreeSet<Node>,
    /// When a node, or one of its tasks, was stopped.
    stops: BTreeMap<Node, Vec<(Moment, Moment)>>,
}

impl<'a> Story<'a> {
    pub(super) fn new(schedule: &'a Schedule, records: &'a [Record]) -> Self {
        let calm_at = Moment::ZERO + schedule.chaos;
        let end = records.last().map_or(calm_at, |last| last.at);
        let mut story = Self {
            schedule,
            records,
            terms: Vec::new(),
            calm_at,
            end,
            killed: BTreeMap::new(),
            closed: BTreeSet::new(),
            stops: BTreeMap::new(),
        };
        let mut joined = BTreeMap::new();
        for (position, record) in records.iter().enumerate() {
            if let What::Joined { id } = record.what {
                joined.insert(id, position);
            }
            story.add(record, &joined);
        }
        for term in &mut story.terms {
            let killed = story.killed.get(&term.node).copied();
            if !term.won {
                term.hand_over = term.elected;
            }
            for stopped in killed.into_iter().chain(term.stopped) {
                term.hand_over = term.hand_over.min(stopped);
            }
            if let Some(killed) = killed {
                term.beliefs.retain(|(from, _)| *from < killed);
                if let Some((_, until)) = term.beliefs.last_mut() {
                    *until = killed.min(*until);
                }
            }
        }
        story
    }

    fn add(&mut self, record: &Record, joined: &BTreeMap<CandidateId, usize>) {
        let Record { at, node, what } = record;
        match what {
            What::Elected {
                id,
                token,
                deadline,
                hand_over,
            } => self.terms.push(Term {
                node: *node,
                id: *id,
                token: *token,
                position: joined.get(id).copied(),
                elected: *at,
                deadline: *deadline,
                hand_over: *hand_over,
                stop_margin: hand_over.since(*deadline),
                won: false,
                stopped: None,
                beliefs: Vec::new(),
                ended: Vec::new(),
            }),
            What::Belief {
                id,
                until,
                hand_over,
            } => {
                if let Some(term) = self.term_mut(*id) {
                    if let Some((_, before)) = term.beliefs.last_mut() {
                        *before = (*before).min(*at);
                    }
                    if let Some(until) = until {
                        term.beliefs.push((*at, *until));
                    }
                    term.hand_over = term.hand_over.max(*hand_over);
                }
            }
            What::Won { id } => {
                if let Some(term) = self.term_mut(*id) {
                    term.won = true;
                }
            }
            What::GivenUp { id } | What::WorkOver { id } => {
                if let Some(term) = self.term_mut(*id) {
                    term.stop_by(*at);
                }
            }
            What::Ended { id: Some(id), .. } => {
                let closes = self.closed.contains(node);
                if let Some(term) = self.term_mut(*id) {
                    term.ended.push(*at);
                    // There is the stop margin from here on, and no more.
                    if closes {
                        term.stop_by(*at + term.stop_margin);
                    }
                }
            }
            What::Closes => {
                self.closed.insert(*node);
                let own = self.terms.iter_mut().filter(|term| term.node == *node);
                for term in own.filter(|term| !term.ended.is_empty()) {
                    term.stop_by(*at + term.stop_margin);
                }
            }
            What::Killed => {
                self.killed.insert(*node, *at);
            }
            What::Stalled { since, until } => self.stopped(*node, *since, *until),
            What::Stopped { until } => self.stopped(*node, *at, *until),
            _ => {}
        }
    }

    fn stopped(&mut self, node: Node, since: Moment, until: Moment) {
        self.stops.entry(node).or_default().push((since, until));
    }

    fn term_mut(&mut self, id: CandidateId) -> Option<&mut Term> {
        self.terms.iter_mut().rev().find(|term| term.id == id)
    }

    pub(super) fn term(&self, id: CandidateId) -> Option<&Term> {
        self.terms.iter().rev().find(|term| term.id == id)
    }

    /// `span` after `from`, and as much later as the node was stopped in the meantime.
    pub(super) fn later(&self, node: Node, from: Moment, span: Duration) -> Moment {
        let mut by = from + span;
        let stops = self.stops.get(&node).map_or(&[][..], Vec::as_slice);
        while let Some((_, until)) = stops
            .iter()
            .find(|(since, until)| *since <= by && *until + span > by)
        {
            by = *until + span;
        }
        by
    }

    /// Whether the node was stopped at some time between these.
    pub(super) fn was_stopped(&self, node: Node, from: Moment, to: Moment) -> bool {
        let mut stops = self.stops.get(&node).into_iter().flatten();
        stops.any(|(since, until)| *since <= to && *until >= from)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "term {} of node {} ({})",
            self.token, self.node.0, self.id
        )
    }
}
