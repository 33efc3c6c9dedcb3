//! I2: tokens grow with each election, and none is given twice. I9: first come, first elected.

use std::collections::BTreeMap;

use crate::check::{Findings, Invariant};
use crate::history::{At, Election, Event, Line};
use crate::story::Story;

/// An elected line's moment is when the process knew, before it asked once more and still believed. So a process that was frozen
/// meanwhile does not look as if it had been elected after its successor.
pub(super) fn check_tokens(story: &Story, election: Election, findings: &mut Findings) {
    let mut highest: Option<u64> = None;
    let mut domain: Option<&str> = None;
    for (at, term) in story.elected_of(election) {
        if let Some(highest) = highest.filter(|highest| term.token <= *highest) {
            findings.violate(
                Invariant::I2,
                election,
                at,
                format!(
                    "{} was elected with token {}, after {highest}",
                    term.node, term.token
                ),
            );
        }
        highest = highest.max(Some(term.token));
        let known = domain.or(term.domain.as_deref());
        if known != term.domain.as_deref() {
            findings.violate(
                Invariant::I2,
                election,
                at,
                format!("the tokens were of {known:?}, then of {:?}", term.domain),
            );
        }
        domain = known;
    }
    let mut holders: BTreeMap<u64, &str> = BTreeMap::new();
    for term in story.terms_of(election) {
        let Some(at) = term.elected.first().or(term.elected_late.first()) else {
            continue;
        };
        if let Some(other) = holders.insert(term.token, &term.node) {
            let text = format!(
                "token {} was given to {other} and to {}",
                term.token, term.node
            );
            findings.violate(Invariant::I2, election, *at, text);
        }
    }
}

/// A place in the queue.
#[derive(Clone, Copy)]
struct Place<'a> {
    node: &'a str,
    /// It was taken after this: the candidate began to campaign, or lost the place before.
    after: At,
    /// It was taken before this: the candidate was told that it stands in line.
    before: At,
}

/// Who stood in line before another one began to campaign had joined before. If both are elected from these places, it has to be
/// first, where that is promised.
pub(super) fn check_queue(story: &Story, election: Election, findings: &mut Findings) {
    if !story.promise.fair {
        return;
    }
    let mut outside: BTreeMap<&str, At> = BTreeMap::new();
    let mut places: BTreeMap<&str, Place<'_>> = BTreeMap::new();
    let mut elected: Vec<(Place<'_>, u64, At)> = Vec::new();
    for Line { at, node, event } in story.lines_of(election) {
        match event {
            Event::Campaigning { .. } | Event::Lost { .. } => {
                outside.insert(node, *at);
                places.remove(node.as_str());
            }
            Event::Waiting { error: None, .. } => {
                let (after, before) = (outside.get(node.as_str()), *at);
                if let Some(after) = after.copied() {
                    places.entry(node).or_insert(Place {
                        node,
                        after,
                        before,
                    });
                }
            }
            Event::Elected { token, .. } => {
                if let Some(place) = places.remove(node.as_str()) {
                    elected.push((place, *token, *at));
                }
            }
            _ => {}
        }
    }
    for (nth, (sooner, token, at)) in elected.iter().enumerate() {
        for (later, ..) in &elected[nth + 1..] {
            if later.before < sooner.after {
                findings.violate(
                    Invariant::I9,
                    election,
                    *at,
                    format!(
                        "{} stood in line at {} and {} came after {}, but was elected first, in term {token}",
                        later.node, later.before, sooner.node, sooner.after
                    ),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::script::{Script, found};

    #[test]
    fn tokens_that_grow_are_fine() {
        let mut script = Script::default();
        script
            .elected("a", 3, 100)
            .elected("b", 7, 200)
            .elected("a", 8, 300);
        script.ended_all();
        assert_eq!(found(&script.check()), []);
    }

    #[test]
    fn a_token_that_is_lower_is_found() {
        let mut script = Script::default();
        script.elected("a", 7, 100).elected("b", 3, 200).ended_all();
        assert_eq!(found(&script.check()), [Invariant::I2]);
    }

    #[test]
    fn a_token_given_twice_is_found_also_when_one_came_too_late() {
        let mut script = Script::default();
        script
            .elected("a", 7, 100)
            .elected_late("b", 7, 200)
            .ended_all();
        assert_eq!(found(&script.check()), [Invariant::I2]);
    }

    #[test]
    fn who_learns_too_late_that_it_led_does_not_break_the_order() {
        let mut script = Script::default();
        script
            .elected("b", 7, 100)
            .elected_late("a", 3, 200)
            .ended_all();
        assert_eq!(found(&script.check()), []);
    }

    #[test]
    fn another_history_is_found() {
        let mut script = Script::default();
        script
            .elected("a", 7, 100)
            .elected_of("b", "other", 8, 200)
            .ended_all();
        assert_eq!(found(&script.check()), [Invariant::I2]);
    }

    #[test]
    fn who_joined_later_must_not_be_elected_sooner() {
        let mut script = Script::default();
        script.campaigning("a", 10).waiting("a", 20);
        script.campaigning("b", 30).waiting("b", 40);
        script.elected("b", 5, 50).elected("a", 6, 60);
        script.ended_all();
        assert_eq!(found(&script.check()), [Invariant::I9]);
        script.unfair();
        assert_eq!(found(&script.check()), []);
    }

    #[test]
    fn who_lost_its_place_stands_at_the_end_again() {
        let mut script = Script::default();
        script.campaigning("a", 10).waiting("a", 20);
        script.campaigning("b", 30).waiting("b", 40);
        script.lost("a", 42).waiting("a", 45);
        script.elected("b", 5, 50).elected("a", 6, 60);
        script.ended_all();
        assert_eq!(found(&script.check()), []);
    }

    #[test]
    fn who_joined_side_by_side_may_be_elected_in_any_order() {
        let mut script = Script::default();
        script.campaigning("a", 10).campaigning("b", 15);
        script.waiting("a", 20).waiting("b", 21);
        script.elected("b", 5, 50).elected("a", 6, 60);
        script.ended_all();
        assert_eq!(found(&script.check()), []);
    }
}
