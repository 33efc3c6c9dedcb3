//! I1: no two terms are believed in at once.
//!
//! A belief goes from before the first yes, when the term had been won already, to before the last one. So it is never longer than it
//! was, and an overlap is no artefact of slow processes.

use crate::check::{Findings, Invariant};
use crate::history::Election;
use crate::story::{Span, Story, Term};

pub(super) fn check(story: &Story, election: Election, findings: &mut Findings) {
    let mut beliefs: Vec<(Span, &Term)> = story
        .terms_of(election)
        .flat_map(|term| term.beliefs.iter().map(move |belief| (*belief, term)))
        .collect();
    beliefs.sort_by_key(|(belief, _)| belief.since);
    // The belief that lasted longest of all so far: the next may not begin before its end.
    let mut longest: Option<(Span, &Term)> = None;
    for (belief, term) in beliefs {
        let before = longest.filter(|(_, other)| !std::ptr::eq(*other, term));
        if let Some((earlier, other)) = before {
            if belief.since <= earlier.until {
                let both = earlier.until.min(belief.until).since(belief.since);
                findings.violate(
                    Invariant::I1,
                    election,
                    belief.since,
                    format!(
                        "{} believed in term {} until {}, {} in term {} from {} on: {both:?} both",
                        other.node, other.token, earlier.until, term.node, term.token, belief.since
                    ),
                );
            } else if election != Election::Naive {
                let gap = belief.since.since(earlier.until);
                let smaller =
                    |smallest: Option<_>| Some(smallest.map_or(gap, |known| gap.min(known)));
                findings.smallest_gap = smaller(findings.smallest_gap);
                if other.resigning.is_none() && other.dropping.is_none() {
                    findings.smallest_gap_lost = smaller(findings.smallest_gap_lost);
                }
            }
        }
        if longest.is_none_or(|(earlier, _)| belief.until >= earlier.until) {
            longest = Some((belief, term));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::check::script::{Script, found};

    #[test]
    fn beliefs_that_follow_each_other_are_fine_and_their_gap_is_measured() {
        let mut script = Script::default();
        script.believed("a", 1, 100, 200).believed("b", 2, 350, 400);
        script.resigning("b", 2, 401).believed("a", 3, 410, 500);
        let findings = script.check();
        assert_eq!(found(&findings), []);
        assert_eq!(findings.smallest_gap, Some(Duration::from_millis(10)));
        assert_eq!(findings.smallest_gap_lost, Some(Duration::from_millis(150)));
    }

    #[test]
    fn beliefs_that_overlap_are_found() {
        let mut script = Script::default();
        script.believed("a", 1, 100, 200).believed("b", 2, 199, 400);
        assert_eq!(found(&script.check()), [Invariant::I1]);
    }

    #[test]
    fn a_belief_within_a_longer_one_is_found_whatever_comes_between() {
        let mut script = Script::default();
        script.believed("a", 1, 100, 900).believed("b", 2, 200, 300);
        script.believed("c", 3, 400, 500);
        assert_eq!(found(&script.check()), [Invariant::I1, Invariant::I1]);
    }

    #[test]
    fn one_process_must_not_believe_in_two_terms_either() {
        let mut script = Script::default();
        script.believed("a", 1, 100, 200).believed("a", 2, 150, 400);
        assert_eq!(found(&script.check()), [Invariant::I1]);
    }

    #[test]
    fn a_belief_that_is_told_again_while_it_grows_is_one() {
        let mut script = Script::default();
        script.believed("a", 1, 100, 200).believed("a", 1, 100, 300);
        script.believed("b", 2, 250, 400);
        assert_eq!(found(&script.check()), [Invariant::I1]);
    }
}
