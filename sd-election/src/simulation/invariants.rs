//! What must be true of every history, whatever went wrong. The numbers are those of the list that this crate is built to:
//!
//! | | |
//! |---|---|
//! | I1 | no two beliefs overlap, nor does one reach beyond another's hand-over; none comes back; each begins on a fresh confirmation |
//! | I2 | tokens grow from term to term, and none is given twice |
//! | I3 | what a fence admits is in the order of the terms |
//! | I4 | what is written within the stop margin, without a fence, is written before the next term |
//! | I5 | once all is well, everybody leads in turn |
//! | I6 | nothing is left at the server, and no task, of those who are gone |
//! | I7 | every term that was told ends once, at once when its entry is known to be gone, and nothing comes after a resignation |
//! | I8 | what observers see grows, and is true in the end |
//! | I9 | terms come in the order in which their candidates joined |

mod beliefs;
mod effects;
mod endings;
mod order;
mod remains;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use sd_core::{CandidateId, Moment};

use super::executor::Node;
use super::history::{Record, What};
use super::schedule::Schedule;

/// An invariant that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    invariant: &'static str,
    at: Moment,
    text: String,
}

impl Violation {
    pub(super) fn new(invariant: &'static str, at: Moment, text: String) -> Self {
        Self {
            invariant,
            at,
            text,
        }
    }

    /// Which one, for instance `"I1"`.
    pub fn invariant(&self) -> &'static str {
        self.invariant
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.since_start().as_secs_f64();
        write!(f, "{} at {at:.6}: {}", self.invariant, self.text)
    }
}

/// What is worth counting in a history, to see that the schedules come to the point.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) terms: u64,
    /// The shortest time between two nodes' beliefs, where they must not overlap.
    pub(super) gap: Option<Duration>,
    /// How often each kind of thing happened.
    pub(super) counts: BTreeMap<&'static str, u64>,
}

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

/// What was found to be broken.
#[derive(Debug, Default)]
pub(super) struct Found(Vec<Violation>);

impl Found {
    pub(super) fn add(&mut self, invariant: &'static str, at: Moment, text: impl Into<String>) {
        self.0.push(Violation::new(invariant, at, text.into()));
    }
}

pub(super) fn check(schedule: &Schedule, records: &[Record]) -> (Vec<Violation>, Facts) {
    let story = Story::new(schedule, records);
    let mut found = Found::default();
    let gap = beliefs::check(&story, &mut found);
    order::check(&story, &mut found);
    effects::check(&story, &mut found);
    endings::check(&story, &mut found);
    remains::check(&story, &mut found);
    let facts = Facts {
        terms: u64::try_from(story.terms.len()).unwrap_or(u64::MAX),
        gap,
        counts: count(schedule, records),
    };
    found.0.sort_by_key(|violation| violation.at);
    (found.0, facts)
}

pub(super) use self::remains::all_led_within;

impl<'a> Story<'a> {
    fn new(schedule: &'a Schedule, records: &'a [Record]) -> Self {
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

fn count(schedule: &Schedule, records: &[Record]) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for record in records {
        let name = match &record.what {
            What::Stalled { .. } => "stops at a reading of a clock",
            What::Stopped { .. } => "nodes stopped",
            What::Killed => "nodes killed",
            What::CutOff(_) => "nodes cut off",
            What::ServerDown => "server down",
            What::ServerUp {
                leases_restarted: true,
            } => "leases restarted",
            What::ServerFrozen { .. } => "server frozen",
            What::Storm => "storms",
            What::EntryRemoved { .. } => "entries removed",
            What::LeaseEnded { .. } => "leases ended",
            What::Expired { .. } => "leases that ended early",
            What::CampaignDropped => "campaigns dropped",
            What::Joined { id } if !seen.insert(*id) => "joins that came again",
            _ => continue,
        };
        *counts.entry(name).or_default() += 1;
    }
    counts.insert(schedule.class.as_str(), 1);
    counts
}
