//! I1: who believes when.

use std::collections::BTreeSet;
use std::time::Duration;

use sd_core::clock::Moment;

use super::story::{Story, Term};
use super::violation::Found;
use crate::simulation::history::What;

/// What a poll and a reading of the clock may take, however fast the node is.
const MOMENT: Duration = Duration::from_millis(1);

/// Returns the shortest time between two nodes' beliefs.
pub(super) fn check(story: &Story<'_>, found: &mut Found) -> Option<Duration> {
    none_comes_back(story, found);
    each_begins_fresh(story, found);
    each_stops_without_progress(story, found);
    if !story.schedule.class.separates_beliefs() {
        return None;
    }
    no_term_begins_before_the_hand_over(story, found);
    none_overlap(story, found)
}

fn none_overlap(story: &Story<'_>, found: &mut Found) -> Option<Duration> {
    let mut beliefs: Vec<(Moment, Moment, usize)> = Vec::new();
    for (index, term) in story.terms.iter().enumerate() {
        let own = term.beliefs.iter().filter(|(from, until)| from < until);
        beliefs.extend(own.map(|(from, until)| (*from, *until, index)));
    }
    beliefs.sort_unstable();
    let mut gap: Option<Duration> = None;
    let mut last: Option<(Moment, usize)> = None;
    for (from, until, index) in beliefs {
        if let Some((over, before)) = last.filter(|(_, before)| *before != index) {
            if from < over {
                let text = format!(
                    "{} is believed in from here on, and {} still for {:?}",
                    story.terms[index],
                    story.terms[before],
                    over.since(from)
                );
                found.add("I1", from, text);
            } else if story.terms[before].node != story.terms[index].node {
                gap = Some(from.since(over).min(gap.unwrap_or(Duration::MAX)));
            }
        }
        if last.is_none_or(|(over, _)| until >= over) {
            last = Some((until, index));
        }
    }
    gap
}

/// The application may go on until its hand-over: that is what the stop margin is for.
fn no_term_begins_before_the_hand_over(story: &Story<'_>, found: &mut Found) {
    let mut last: Option<&Term> = None;
    for term in story.terms.iter().filter(|term| term.was_in_time()) {
        if let Some(last) = last.filter(|last| last.hand_over > term.elected) {
            let text = format!(
                "{term} begins, and {last} has {:?} left to stop",
                last.hand_over.since(term.elected)
            );
            found.add("I1", term.elected, text);
        }
        if last.is_none_or(|last| last.hand_over < term.hand_over) {
            last = Some(term);
        }
    }
}

/// An application that was told that a term is over is never told again that it lasts.
fn none_comes_back(story: &Story<'_>, found: &mut Found) {
    let mut over = BTreeSet::new();
    for record in story.records {
        match record.what {
            What::Asked { id, leads: false } | What::GivenUp { id } => {
                over.insert(id);
            }
            What::Asked { id, leads: true } if over.contains(&id) => {
                found.add(
                    "I1",
                    record.at,
                    format!("the term of {id} was over and goes on"),
                );
            }
            What::Belief {
                id,
                until: Some(until),
                ..
            } if over.contains(&id) && until > record.at => {
                found.add(
                    "I1",
                    record.at,
                    format!("the term of {id} was over and is extended"),
                );
            }
            _ => {}
        }
    }
}

/// A term is told only while there is something left of it.
fn each_begins_fresh(story: &Story<'_>, found: &mut Found) {
    for term in story.terms.iter().filter(|term| !term.was_in_time()) {
        let just_before = term.elected - MOMENT;
        if !story.was_stopped(term.node, just_before, term.elected) {
            let text = format!("{term} begins when it is over already");
            found.add("I1", term.elected, text);
        }
    }
}

/// An application that shows no progress keeps its term no longer than what was confirmed before.
fn each_stops_without_progress(story: &Story<'_>, found: &mut Found) {
    let Some(within) = story.schedule.config.progress_within else {
        return;
    };
    let slow = |span: Duration| span.div_f64(story.schedule.slowest);
    let longest = slow(within) + slow(story.schedule.granted);
    for term in &story.terms {
        let mut alive = term.elected;
        for record in story.records {
            match record.what {
                What::Alive { id } if id == term.id => alive = record.at,
                What::Belief {
                    id,
                    until: Some(until),
                    ..
                } if id == term.id && until > story.later(term.node, alive, longest) => {
                    let text = format!(
                        "{term} goes on for {:?} without progress",
                        until.since(alive)
                    );
                    found.add("I1", record.at, text);
                }
                _ => {}
            }
        }
    }
}
