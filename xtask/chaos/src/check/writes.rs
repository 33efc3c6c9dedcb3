//! I3 and I4: what the register took, with fencing and without.

use std::collections::BTreeSet;

use crate::check::{Findings, Invariant};
use crate::history::{At, Election, Event, Line};
use crate::story::{Span, Story};

/// How much the register was asked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) accepted: u64,
    /// Because of a greater token: fencing at work.
    pub(crate) refused: u64,
}

/// One term's writes in a row.
struct Run<'a> {
    node: &'a str,
    token: u64,
    first: At,
    last: At,
}

pub(super) fn check(story: &Story, election: Election, findings: &mut Findings) {
    let (mut fenced_runs, mut unfenced_runs) = (Vec::new(), Vec::new());
    for Line { node, event, .. } in story.lines_of(election) {
        match event {
            Event::Accepted {
                token,
                fenced,
                first,
                last,
                count,
                ..
            } => {
                let runs = if *fenced {
                    &mut fenced_runs
                } else {
                    &mut unfenced_runs
                };
                runs.push(Run {
                    node,
                    token: *token,
                    first: *first,
                    last: *last,
                });
                findings.writes.accepted += count;
            }
            Event::Refused { .. } => findings.writes.refused += 1,
            _ => {}
        }
    }
    check_fenced(election, &fenced_runs, findings);
    check_unfenced(story, election, &unfenced_runs, findings);
}

fn check_fenced(election: Election, runs: &[Run<'_>], findings: &mut Findings) {
    let mut highest: Option<&Run<'_>> = None;
    for run in runs {
        match highest {
            Some(highest) if run.token < highest.token => findings.violate(
                Invariant::I3,
                election,
                run.first,
                format!(
                    "a fenced write of {} with token {} was taken after one of {} with {}",
                    run.node, run.token, highest.node, highest.token
                ),
            ),
            _ => highest = Some(run),
        }
    }
}

/// Counts each term once. A write that was under way when its process was frozen says nothing about the candidate: only fencing can keep it out.
fn check_unfenced(story: &Story, election: Election, runs: &[Run<'_>], findings: &mut Findings) {
    let elected = story.elected_of(election);
    let began = |token| {
        elected
            .iter()
            .find(|(_, term)| term.token == token)
            .map(|(at, _)| *at)
    };
    let mut told = BTreeSet::new();
    for run in runs {
        let since = began(run.token).unwrap_or(run.first);
        let lived = Span {
            since,
            until: run.last,
        };
        let next = elected
            .iter()
            .find(|(at, term)| term.token > run.token && *at < run.last);
        if let Some((at, next)) = next.filter(|_| !story.was_frozen(run.node, lived))
            && told.insert(run.token)
        {
            findings.violate(
                Invariant::I4,
                election,
                *at,
                format!(
                    "{} wrote in term {} until {}, and {} was elected with {} at {at}",
                    run.node, run.token, run.last, next.node, next.token
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::script::{Script, found};

    #[test]
    fn writes_that_end_before_the_next_election_are_fine() {
        let mut script = Script::default();
        script
            .elected("a", 1, 100)
            .wrote("a", 1, 110, 190)
            .wrote_fenced("a", 1, 110, 190);
        script
            .elected("b", 2, 200)
            .wrote("b", 2, 210, 290)
            .wrote_fenced("b", 2, 210, 290);
        script.ended_all();
        let findings = script.check();
        assert_eq!(found(&findings), []);
        assert_eq!(findings.writes.accepted, 8);
    }

    #[test]
    fn a_fenced_write_of_an_old_term_is_found() {
        let mut script = Script::default();
        script
            .wrote_fenced("a", 1, 110, 190)
            .wrote_fenced("b", 2, 210, 290);
        script.wrote_fenced("a", 1, 291, 291);
        assert_eq!(found(&script.check()), [Invariant::I3]);
    }

    #[test]
    fn an_unfenced_write_after_the_next_election_is_found() {
        let mut script = Script::default();
        script.elected("a", 1, 100).wrote("a", 1, 110, 210);
        script.elected("b", 2, 200).ended_all();
        assert_eq!(found(&script.check()), [Invariant::I4]);
    }

    #[test]
    fn a_write_of_a_process_that_was_frozen_in_its_term_is_not_held_against_it() {
        let mut script = Script::default();
        script
            .elected("a", 1, 100)
            .frozen("a", 150, 205)
            .wrote("a", 1, 110, 210);
        script.elected("b", 2, 200).ended_all();
        assert_eq!(found(&script.check()), []);
    }

    #[test]
    fn another_process_that_is_frozen_excuses_no_write() {
        let mut script = Script::default();
        script
            .elected("a", 1, 100)
            .frozen("b", 150, 180)
            .wrote("a", 1, 110, 210);
        script.elected("b", 2, 200).ended_all();
        assert_eq!(found(&script.check()), [Invariant::I4]);
    }
}
