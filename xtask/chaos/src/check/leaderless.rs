//! I5: there is a leader again within the bound. Time in which there is no working server, or in which the machine stands still, does
//! not count; a fault of one candidate is no excuse for the others.

use std::time::Duration;

use crate::check::{Findings, Invariant};
use crate::history::Election;
use crate::story::{Span, Story};

/// What noticing, reconnecting and a busy machine may add to what the server promises.
const DETECTION: Duration = Duration::from_secs(5);

/// A span in which nobody believed to lead.
#[derive(Clone, Debug)]
pub(crate) struct Gap {
    pub(crate) election: Election,
    pub(crate) span: Span,
    /// How much of it was after the last excuse within.
    pub(crate) with_servers: Duration,
}

pub(super) fn check(story: &Story, election: Election, findings: &mut Findings) {
    let Some(window) = story.window() else {
        return;
    };
    let bound = story.promise.succeeded_within(election) + DETECTION;
    for span in gaps(story, election, window) {
        let faults = story.rounds.iter();
        let faults = faults.filter(|round| round.kind.impairs_servers());
        let excuses = faults
            .map(|round| round.span)
            .chain(story.still.iter().copied());
        let within = excuses.filter(|excuse| excuse.overlaps(span));
        let healed = within.map(|excuse| excuse.until).max();
        let counts_from = healed.map_or(span.since, |healed| healed.max(span.since));
        let with_servers = span.until.since(counts_from);
        if with_servers > bound {
            let text = format!("nobody led for {with_servers:?}, at most {bound:?} were promised");
            findings.violate(Invariant::I5, election, counts_from, text);
        }
        findings.leaderless.push(Gap {
            election,
            span,
            with_servers,
        });
    }
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
    fn never_electing_anybody_is_found() {
        let mut script = Script::default();
        script.begun(0).ending(6_100);
        // The delayed election may take a time-to-live longer.
        assert_eq!(found(&script.check()), [Invariant::I5]);
    }

    #[test]
    fn nobody_has_to_lead_before_the_beginning_and_after_the_end() {
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
            .believed("b", 2, 15_000, 20_000);
        script.ending(20_000).stood_still(9_000, 9_500);
        assert_eq!(found(&script.check()), []);
    }
}
