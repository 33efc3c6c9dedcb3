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

/// The life of an instance, from when it was registered.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) id: String,
    pub(super) seat: String,
    pub(super) since: At,
    pub(super) end: Option<(At, End)>,
}

/// What was broken.
#[derive(Clone, Debug)]
pub(super) struct Disturbance {
    pub(super) stretch: Stretch,
    /// The seat that it was done to; `None` for the servers, and for the machine, which concern all.
    pub(super) seat: Option<String>,
    /// What takes a record away however short it is.
    pub(super) removes: bool,
}

impl Disturbance {
    pub(super) fn concerns(&self, seat: &str) -> bool {
        self.seat.as_deref().is_none_or(|of| of == seat)
    }

    pub(super) fn lasts(&self, at_least: Duration) -> bool {
        let Stretch { since, until } = self.stretch;
        until.is_none_or(|until| until.since(since) >= at_least)
    }
}

/// What one reader saw during the life of its process.
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
                Event::Registered { id } => timeline.lives.push(Life {
                    id: id.clone(),
                    seat: seat.to_owned(),
                    since: at,
                    end: None,
                }),
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
                        removes: kind.is_of_operator(),
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
                        until: Some(at),
                    },
                    seat: None,
                    removes: false,
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
    /// When the instance was seen: from when, until when if that came, and whether it was held all the time.
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
                        *was_held |= held.contains(id);
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
