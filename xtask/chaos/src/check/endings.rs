//! I7: a term ends exactly once, and nothing of it comes after. I6: who has left leaves nothing behind.

use std::time::Duration;

use crate::check::{Findings, Invariant};
use crate::history::{At, Election, Event, Line};
use crate::story::{Span, Story, Term};

/// A process that runs tells the end of a term at once. This is for a busy machine.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

pub(super) fn check(story: &Story, election: Election, findings: &mut Findings) {
    for Line { at, event, .. } in story.lines_of(election) {
        if let Event::Remaining { entries, .. } = event
            && *entries > 0
        {
            let text = format!("{entries} entries were left after all candidates had gone");
            findings.violate(Invariant::I6, election, *at, text);
        }
    }
    for term in story.terms_of(election) {
        if let Some((at, text)) = wrong(story, term) {
            let text = format!("term {} of {} {text}", term.token, term.node);
            findings.violate(Invariant::I7, election, at, text);
        }
    }
}

/// The first thing that is wrong with the term's end.
fn wrong(story: &Story, term: &Term) -> Option<(At, String)> {
    let told = term.elected.iter().chain(&term.elected_late);
    let last_told = told.clone().max().copied();
    if told.count() > 1 {
        return last_told.map(|at| (at, "was won twice".to_owned()));
    }
    if let Some(again) = term.ended.get(1) {
        return Some((*again, format!("ended {} times", term.ended.len())));
    }
    if let Some(won) = last_told
        && term.ended.is_empty()
        && !was_killed_before_it_could_tell(story, term)
    {
        return Some((won, "never ended".to_owned()));
    }
    let last = term.beliefs.last()?;
    if term.beliefs.len() > 1 {
        return Some((
            last.since,
            "was believed in again after the belief had ended".to_owned(),
        ));
    }
    let ends = [
        (term.resigned, "resign had returned"),
        (term.ended.first().copied(), "its end was announced"),
    ];
    ends.into_iter()
        .filter_map(|(end, what)| Some((end?, what)))
        .find(|(end, _)| last.until > *end)
        .map(|(end, what)| {
            (
                end,
                format!(
                    "was believed in until {}, after {what} at {end}",
                    last.until
                ),
            )
        })
}

/// Whether its process was killed in the term, or had no time to tell the end of it.
fn was_killed_before_it_could_tell(story: &Story, term: &Term) -> bool {
    let Some(fate) = story.fates.get(&term.node) else {
        return false;
    };
    let (Some(until), Some(since)) = (fate.killed, term.last_sign()) else {
        return false;
    };
    let without_time = fate.frozen.iter().chain(&story.still).copied().collect();
    let had_time = Span { since, until }.without(without_time);
    had_time.into_iter().map(Span::length).sum::<Duration>() <= TOLD_WITHIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::script::{Script, found};

    #[test]
    fn a_term_that_ends_once_is_fine() {
        let mut script = Script::default();
        script
            .elected("a", 1, 100)
            .believed("a", 1, 100, 200)
            .ended("a", 1, 201);
        script.remaining(0, 300);
        assert_eq!(found(&script.check()), []);
    }

    #[test]
    fn a_term_that_never_ends_is_found_unless_its_process_was_killed_in_it() {
        let mut script = Script::default();
        script.elected("a", 1, 100).believed("a", 1, 100, 9_000);
        assert_eq!(found(&script.check()), [Invariant::I7]);
        script.killed("a", 9_100);
        assert_eq!(found(&script.check()), []);
    }

    #[test]
    fn being_killed_later_excuses_no_term_whose_end_could_have_been_told() {
        let mut script = Script::default();
        script.elected("a", 1, 100).believed("a", 1, 100, 9_000);
        script.killed("a", 10_100);
        assert_eq!(found(&script.check()), [Invariant::I7]);
    }

    #[test]
    fn a_process_that_was_frozen_in_its_term_and_killed_could_not_tell() {
        let mut script = Script::default();
        script.elected("a", 1, 100).believed("a", 1, 100, 9_000);
        script.frozen("a", 9_010, 30_000).killed("a", 30_500);
        assert_eq!(found(&script.check()), []);
        let mut script = Script::default();
        script.elected("a", 1, 100).believed("a", 1, 100, 9_000);
        script.frozen("a", 9_010, 30_000).killed("a", 31_100);
        assert_eq!(found(&script.check()), [Invariant::I7]);
    }

    #[test]
    fn another_processs_being_killed_excuses_nothing() {
        let mut script = Script::default();
        script.elected("a", 1, 100).believed("a", 1, 100, 9_000);
        script.killed("b", 9_100);
        assert_eq!(found(&script.check()), [Invariant::I7]);
    }

    #[test]
    fn a_term_that_ends_twice_is_found() {
        let mut script = Script::default();
        script
            .elected("a", 1, 100)
            .ended("a", 1, 200)
            .ended("a", 1, 201);
        assert_eq!(found(&script.check()), [Invariant::I7]);
    }

    #[test]
    fn a_term_that_was_won_twice_is_found() {
        let mut script = Script::default();
        script
            .elected_late("a", 1, 100)
            .elected_late("a", 1, 150)
            .ended("a", 1, 200);
        assert_eq!(found(&script.check()), [Invariant::I7]);
    }

    #[test]
    fn a_belief_after_the_end_is_found() {
        let mut script = Script::default();
        script
            .elected("a", 1, 100)
            .believed("a", 1, 100, 202)
            .ended("a", 1, 201);
        assert_eq!(found(&script.check()), [Invariant::I7]);
    }

    #[test]
    fn a_belief_after_resign_returned_is_found() {
        let mut script = Script::default();
        script.elected("a", 1, 100).believed("a", 1, 100, 202);
        script.resigned("a", 1, 201).ended("a", 1, 203);
        assert_eq!(found(&script.check()), [Invariant::I7]);
    }

    #[test]
    fn a_belief_that_is_resurrected_is_found() {
        let mut script = Script::default();
        script
            .elected("a", 1, 100)
            .believed("a", 1, 100, 150)
            .believed("a", 1, 160, 180);
        script.ended("a", 1, 200);
        assert_eq!(found(&script.check()), [Invariant::I7]);
    }

    #[test]
    fn a_term_that_was_won_and_cancelled_before_any_process_knew_may_end_once() {
        let mut script = Script::default();
        script.ended("a", 1, 100);
        assert_eq!(found(&script.check()), []);
        script.ended("a", 1, 101);
        assert_eq!(found(&script.check()), [Invariant::I7]);
    }

    #[test]
    fn an_entry_that_is_left_is_found() {
        let mut script = Script::default();
        script.remaining(1, 300);
        assert_eq!(found(&script.check()), [Invariant::I6]);
    }
}
