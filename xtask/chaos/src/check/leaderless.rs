//! I5: there is a leader again within the bound. Time in which there is no working server, or in which the machine stands still, does
//! not count and splits what is before from what is after, of which each has to be within the bound; a fault of one candidate is no
//! excuse for the others.

use std::time::Duration;

use crate::check::{Findings, Invariant};
use crate::history::{Election, Event, Line};
use crate::story::{Span, Story};

/// A span in which no candidate believed that it leads.
#[derive(Clone, Debug)]
pub(crate) struct Gap {
    pub(crate) election: Election,
    pub(crate) span: Span,
    /// The longest part of it in which servers and machine worked.
    pub(crate) with_servers: Duration,
}

pub(super) fn check(story: &Story, election: Election, findings: &mut Findings) {
    let Some(window) = story.window() else {
        return;
    };
    let bound = story.promise.led_within(election);
    for span in gaps(story, election, window) {
        let counted = span.without(impaired(story));
        for part in counted.iter().filter(|part| part.length() > bound) {
            let took = part.length();
            let text = format!("no leader for {took:?}, at most {bound:?} is promised");
            findings.violate(Invariant::I5, election, part.since, text);
        }
        findings.leaderless.push(Gap {
            election,
            span,
            with_servers: counted
                .into_iter()
                .map(Span::length)
                .max()
                .unwrap_or_default(),
        });
    }
    for Line { at, event, .. } in story.lines_of(election) {
        if let Event::NoneLeads { since, .. } = event {
            let (since, until) = (*since, *at);
            let counted = Span { since, until }.without(impaired(story));
            // In parts that are short each, too: the wait began when everything was well.
            let waited: Duration = counted.into_iter().map(Span::length).sum();
            if waited > bound {
                let text = format!("no leader for {waited:?}, then the run stopped waiting");
                findings.violate(Invariant::I5, election, since, text);
            }
        }
    }
}

/// When there was no working server, or no machine.
fn impaired(story: &Story) -> Vec<Span> {
    let faults = story.rounds.iter();
    let faults = faults.filter(|round| round.kind.impairs_servers());
    let spans = faults.map(|round| round.span);
    spans.chain(story.still.iter().copied()).collect()
}

fn gaps(story: &Story, election: Election, window: Span) -> Vec<Span> {
    let mut beliefs: Vec<Span> = story
        .terms_of(election)
        .flat_map(|term| term.beliefs.iter().copied())
        .collect();
    beliefs.sort_by_key(|belief| belief.since);
    let mut gaps = Vec::new();
    let mut led_until = window.since;
    for belief in beliefs {
        let since = belief.since.min(window.until);
        if since > led_until {
            gaps.push(Span {
                since: led_until,
                until: since,
            });
        }
        led_until = led_until.max(belief.until);
    }
    if window.until > led_until {
        gaps.push(Span {
            since: led_until,
            until: window.until,
        });
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::script::{Script, found};
    use crate::kind::Kind;

    // The script's bound is 1 s for the failover and 5 s for noticing.

    #[test]
    fn a_gap_within_the_bound_is_fine_and_measured() {
        let mut script = Script::default();
        script
            .begun(0)
            .believed("a", 1, 1_000, 2_000)
            .believed("b", 2, 7_900, 9_000);
        script.ending(9_000);
        let findings = script.check();
        assert_eq!(found(&findings), []);
        let plain = findings.leaderless.iter();
        let plain = plain.filter(|gap| gap.election == Election::Plain);
        let longest = plain.map(|gap| gap.with_servers).max();
        assert_eq!(longest, Some(Duration::from_millis(5_900)));
    }

    #[test]
    fn a_gap_that_is_too_long_is_found() {
        let mut script = Script::default();
        script
            .begun(0)
            .believed("a", 1, 1_000, 2_000)
            .believed("b", 2, 8_100, 9_000);
        script.ending(9_000);
        assert_eq!(found(&script.check()), [Invariant::I5]);
    }

    #[test]
    fn never_electing_a_leader_is_found() {
        let mut script = Script::default();
        script.begun(0).ending(6_100);
        // The delayed election may take a time-to-live longer.
        assert_eq!(found(&script.check()), [Invariant::I5]);
    }

    #[test]
    fn no_leader_is_owed_before_the_beginning_and_after_the_end() {
        let mut script = Script::default();
        script
            .campaigning("a", 0)
            .begun(10_000)
            .believed("a", 1, 10_100, 11_000);
        script.ending(11_000).remaining(0, 30_000);
        assert_eq!(found(&script.check()), []);
    }

    #[test]
    fn time_without_a_server_does_not_count_and_other_faults_do() {
        let mut script = Script::default();
        script
            .begun(0)
            .believed("a", 1, 1_000, 2_000)
            .believed("b", 2, 15_000, 20_000);
        script.ending(20_000).fault(Kind::KillServer, 1_900, 10_000);
        assert_eq!(found(&script.check()), []);
        let mut script = Script::default();
        script
            .begun(0)
            .believed("a", 1, 1_000, 2_000)
            .believed("b", 2, 15_000, 20_000);
        script
            .ending(20_000)
            .fault(Kind::KillCandidate, 1_900, 10_000);
        assert_eq!(found(&script.check()), [Invariant::I5]);
    }

    #[test]
    fn time_in_which_the_machine_stands_still_does_not_count() {
        let mut script = Script::default();
        script
            .begun(0)
            .believed("a", 1, 1_000, 2_000)
            .believed("b", 2, 13_500, 20_000);
        script.ending(20_000).stood_still(7_900, 8_000);
        let findings = script.check();
        assert_eq!(found(&findings), []);
        let plain = |gap: &&Gap| gap.election == Election::Plain;
        let longest = findings.leaderless.iter().filter(plain);
        let longest = longest.map(|gap| gap.with_servers).max();
        assert_eq!(longest, Some(Duration::from_millis(5_900)));
    }

    #[test]
    fn a_fault_at_the_end_of_a_gap_excuses_nothing_before_it() {
        let mut script = Script::default();
        script
            .begun(0)
            .believed("a", 1, 1_000, 2_000)
            .believed("b", 2, 12_000, 20_000);
        script.ending(20_000).fault(Kind::KillServer, 8_100, 11_000);
        assert_eq!(found(&script.check()), [Invariant::I5]);
        let mut script = Script::default();
        script
            .begun(0)
            .believed("a", 1, 1_000, 2_000)
            .believed("b", 2, 12_000, 20_000);
        script.ending(20_000).stood_still(11_000, 11_900);
        assert_eq!(found(&script.check()), [Invariant::I5]);
    }

    #[test]
    fn each_part_between_two_faults_has_to_be_within_the_bound() {
        let with_a_part_of = |length: u64| {
            let again = 5_000 + length;
            let mut script = Script::default();
            script
                .begun(0)
                .believed("a", 1, 1_000, 2_000)
                .believed("b", 2, 20_000, 21_000);
            script.fault(Kind::FreezeServer, 3_000, 5_000);
            script.fault(Kind::RestartServer, again, 15_000);
            script.ending(21_000).check()
        };
        assert_eq!(found(&with_a_part_of(5_900)), []);
        assert_eq!(found(&with_a_part_of(6_100)), [Invariant::I5]);
    }

    #[test]
    fn a_round_whose_patience_ran_out_is_found_whatever_comes_after() {
        let mut script = Script::default();
        script
            .begun(0)
            .believed("a", 1, 0, 10_000)
            .none_leads(10_000, 22_000);
        script.fault(Kind::KillServer, 15_500, 16_000);
        script.believed("b", 2, 22_000, 30_000).ending(30_000);
        assert_eq!(found(&script.check()), [Invariant::I5]);
    }

    #[test]
    fn patience_that_ran_out_with_a_machine_that_stood_still_says_nothing() {
        let mut script = Script::default();
        script
            .begun(0)
            .believed("a", 1, 0, 10_000)
            .none_leads(10_000, 22_000);
        script.stood_still(13_000, 21_000);
        script.believed("b", 2, 22_000, 30_000).ending(30_000);
        assert_eq!(found(&script.check()), []);
    }
}
