//! What there was and what was seen, from the lines of a history.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::history::{At, Event, Line, Reader};

/// A stretch of time; what goes on at the end of the history has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) since: At,
    pub(super) until: Option<At>,
}

impl Stretch {
    /// Whether it and the time from `since` to `until` have a moment in common.
    pub(super) fn meets(&self, since: At, until: At) -> bool {
        self.since <= until && self.until.is_none_or(|end| end >= since)
    }
}

/// How the life of an instance ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Killed,
    Withdrawn,
}

/// The life of an instance.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) id: String,
    pub(super) seat: String,
    /// From when on the registry had it; `None` if its process did not live to say so.
    pub(super) registered: Option<At>,
    pub(super) end: Option<(At, End)>,
}

/// What a disturbance comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Fault,
    /// An operator, who takes a record away at once.
    Operator,
    /// The machine had no time for us. The servers' clocks went on, and they kept what they had.
    Stall,
}

/// What was broken.
#[derive(Clone, Debug)]
pub(super) struct Disturbance {
    pub(super) stretch: Stretch,
    /// The seat that it was done to; `None` for the servers, and for the machine, which concern all.
    pub(super) seat: Option<String>,
    pub(super) cause: Cause,
}

impl Disturbance {
    pub(super) fn concerns(&self, seat: &str) -> bool {
        self.seat.as_deref().is_none_or(|of| of == seat)
    }

    /// How long it had gone on by then: what happens early in a long one does not come of its length.
    pub(super) fn lasted(&self, by: At) -> Duration {
        let Stretch { since, until } = self.stretch;
        until.map_or(by, |until| until.min(by)).since(since)
    }
}

/// What one reader saw during the life of its process, from when that was started.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) reader: Reader,
    pub(super) process: String,
    pub(super) seat: String,
    pub(super) life: Stretch,
    /// What it saw from when on: ready, and which of them held.
    pub(super) sets: Vec<(At, BTreeSet<String>, BTreeSet<String>)>,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    pub(super) lives: Vec<Life>,
    pub(super) views: Vec<View>,
    pub(super) disturbances: Vec<Disturbance>,
    /// The last line.
    pub(super) until: At,
}

impl Timeline {
    /// The lines are in the order of time.
    pub(super) fn new(lines: &[Line]) -> Self {
        let mut timeline = Self {
            until: lines.last().map_or_else(At::default, |line| line.at),
            ..Self::default()
        };
        let mut broken: BTreeMap<u32, usize> = BTreeMap::new();
        for line in lines {
            let (at, seat) = (line.at, seat_of(&line.node));
            match &line.event {
                Event::Started if seat.starts_with('r') => {
                    for reader in [Reader::Ours, Reader::Naive] {
                        timeline.view(line, reader);
                    }
                }
                Event::Registering { id } => timeline.lives.push(Life {
                    id: id.clone(),
                    seat: seat.to_owned(),
                    registered: None,
                    end: None,
                }),
                Event::Registered { id } => {
                    for life in timeline.lives.iter_mut().filter(|life| life.id == *id) {
                        life.registered.get_or_insert(at);
                    }
                }
                Event::Withdrawing { id } => {
                    timeline.ends(at, End::Withdrawn, |life| life.id == *id);
                }
                Event::Killed => {
                    timeline.ends(at, End::Killed, |life| life.seat == seat);
                    for view in &mut timeline.views {
                        if view.process == line.node {
                            view.life.until = Some(at);
                        }
                    }
                }
                Event::Listed {
                    reader,
                    ready,
                    held,
                } => timeline
                    .view(line, *reader)
                    .sets
                    .push((at, ready.clone(), held.clone())),
                Event::Fault {
                    round,
                    kind,
                    target,
                    ..
                } => {
                    broken.insert(*round, timeline.disturbances.len());
                    timeline.disturbances.push(Disturbance {
                        stretch: Stretch {
                            since: at,
                            until: None,
                        },
                        seat: is_seat(target).then(|| target.clone()),
                        cause: if kind.is_of_operator() {
                            Cause::Operator
                        } else {
                            Cause::Fault
                        },
                    });
                }
                Event::Healed { round } => {
                    let healed = broken
                        .get(round)
                        .and_then(|index| timeline.disturbances.get_mut(*index));
                    if let Some(healed) = healed {
                        healed.stretch.until = Some(at);
                    }
                }
                Event::StoodStill { since } => timeline.disturbances.push(Disturbance {
                    stretch: Stretch {
                        since: *since,
                        // As long again goes by until all have done what was due.
                        until: Some(at.plus(at.since(*since))),
                    },
                    seat: None,
                    cause: Cause::Stall,
                }),
                _ => {}
            }
        }
        timeline
    }

    fn ends(&mut self, at: At, how: End, is_it: impl Fn(&Life) -> bool) {
        for life in self.lives.iter_mut().filter(|life| is_it(life)) {
            life.end.get_or_insert((at, how));
        }
    }

    fn view(&mut self, line: &Line, reader: Reader) -> &mut View {
        let known = self
            .views
            .iter()
            .position(|view| view.process == line.node && view.reader == reader);
        let index = known.unwrap_or_else(|| {
            self.views.push(View {
                reader,
                process: line.node.clone(),
                seat: seat_of(&line.node).to_owned(),
                life: Stretch {
                    since: line.at,
                    until: None,
                },
                sets: Vec::new(),
            });
            self.views.len() - 1
        });
        &mut self.views[index]
    }
}

/// Processes are called after their seats.
fn seat_of(process: &str) -> &str {
    process.split_once('.').map_or(process, |(seat, _)| seat)
}

/// Whether this is the name of a seat, and not of a server.
fn is_seat(name: &str) -> bool {
    let number = name.strip_prefix(['s', 'r']);
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

impl View {
    /// When the instance was seen: from when, until when if that came, and whether it was held at last.
    pub(super) fn seen(&self, id: &str) -> Vec<(Stretch, bool)> {
        let mut seen: Vec<(Stretch, bool)> = Vec::new();
        let mut open = false;
        for (at, ready, held) in &self.sets {
            match (ready.contains(id), open) {
                (true, false) => {
                    let stretch = Stretch {
                        since: *at,
                        until: None,
                    };
                    seen.push((stretch, held.contains(id)));
                    open = true;
                }
                (true, true) => {
                    if let Some((_, was_held)) = seen.last_mut() {
                        *was_held = held.contains(id);
                    }
                }
                (false, true) => {
                    if let Some((stretch, _)) = seen.last_mut() {
                        stretch.until = Some(*at);
                    }
                    open = false;
                }
                (false, false) => {}
            }
        }
        seen
    }
}
