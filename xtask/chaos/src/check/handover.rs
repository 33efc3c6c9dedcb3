//! I10: a killed or resigned leader is succeeded within the bound.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::check::{Findings, Invariant, Violation};
use crate::history::{At, Election, Event, Line};
use crate::story::{DETECTION, Span, Story, Term};

/// What a busy machine may add to the bound, and to the two round trips on loopback that resigning takes. The figures themselves are
/// in the report.
const EPSILON: Duration = Duration::from_secs(2);
/// A successor counts if it has stood in line for this long: a watch that is younger is served late by etcd.
const SETTLED: Duration = Duration::from_millis(500);
/// A belief is told this often at least, so a leader was killed in its term if it told this shortly before.
const TOLD_EVERY: Duration = Duration::from_millis(500);

/// How a term ended whose successor was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Killed,
    Resigned,
}

/// From the end of a term to the next `elected`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handover {
    pub(crate) election: Election,
    pub(crate) way: Way,
    pub(crate) took: Duration,
}

pub(super) fn check(story: &Story, election: Election, findings: &mut Findings) {
    let elected = story.elected_of(election);
    for term in story.terms_of(election) {
        let next_after = |at| {
            elected
                .iter()
                .map(|(next, _)| *next)
                .find(|next| *next > at)
        };
        let ended = [
            (Way::Killed, killed(story, term)),
            (Way::Resigned, term.resigning),
        ];
        let Some((way, at, next)) = ended.into_iter().find_map(|(way, at)| {
            let at = at?;
            // Whether there should be a successor at all is another invariant's business.
            Some((way, at, next_after(at)?))
        }) else {
            continue;
        };
        let meanwhile = Span {
            since: at,
            until: next,
        };
        if !someone_waits(story, term, at)
            || story.still.iter().any(|span| span.overlaps(meanwhile))
            || way == Way::Resigned && is_disturbed(story, at, next)
        {
            continue;
        }
        let bound = match way {
            Way::Killed => story.promise.succeeded_within(election) + EPSILON,
            Way::Resigned => EPSILON,
        };
        let took = next.since(at);
        if took > bound {
            let text = format!(
                "term {} of {} was {way:?} at {at} and the next began {took:?} later, at most {bound:?} is promised",
                term.token, term.node
            );
            findings.violations.push(Violation {
                invariant: Invariant::I10,
                election,
                at: next,
                text,
                way: Some(way),
            });
        }
        findings.handovers.push(Handover {
            election,
            way,
            took,
        });
    }
}

/// When its process was killed while it led.
fn killed(story: &Story, term: &Term) -> Option<At> {
    let at = story.fates.get(&term.node)?.killed?;
    let until = term.beliefs.last()?.until;
    let led = until <= at && at.since(until) <= TOLD_EVERY && term.ended.is_empty();
    led.then_some(at)
}

/// Whether a fault was at work around a resignation, or so shortly before that not all who wait are back, or that the entry of a dead
/// candidate may stand in between where there is a queue.
fn is_disturbed(story: &Story, at: At, next: At) -> bool {
    let aftermath = if story.promise.fair {
        story.promise.failover_within
    } else {
        DETECTION
    };
    let around = Span {
        since: at.minus(aftermath),
        until: next.min(at.plus(EPSILON)),
    };
    story.rounds.iter().any(|round| round.span.overlaps(around))
}

/// Whether another process has stood in line for a while at `at`, undisturbed.
fn someone_waits(story: &Story, term: &Term, at: At) -> bool {
    let mut waiting: BTreeMap<&str, At> = BTreeMap::new();
    let mut gone: BTreeSet<&str> = BTreeSet::new();
    for Line {
        at: told,
        node,
        event,
    } in story.lines_of(term.election)
    {
        if *told > at {
            break;
        }
        match event {
            Event::Waiting { error: None, .. } => {
                waiting.entry(node).or_insert(*told);
            }
            Event::Waiting { error: Some(_), .. }
            | Event::Lost { .. }
            | Event::Elected { .. }
            | Event::ElectedLate { .. }
            | Event::Cancelled { .. }
            | Event::Failed { .. }
            | Event::Campaigning { .. } => {
                waiting.remove(node.as_str());
            }
            _ => {}
        }
    }
    for (node, fate) in &story.fates {
        let recently = Span {
            since: at.minus(SETTLED),
            until: at,
        };
        if fate.killed.is_some_and(|killed| killed <= at)
            || fate.frozen.iter().any(|span| span.overlaps(recently))
        {
            gone.insert(node);
        }
    }
    waiting.iter().any(|(node, since)| {
        **node != term.node && at.since(*since) >= SETTLED && !gone.contains(node)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::script::{Script, found};
    use crate::kind::Kind;

    // In the script a killed leader is promised to be succeeded within 1 s.

    fn with_a_waiter() -> Script {
        let mut script = Script::default();
        script.campaigning("b", 1_000).waiting("b", 1_010);
        script.elected("a", 1, 1_020).believed("a", 1, 1_020, 5_000);
        script
    }

    #[test]
    fn a_killed_leader_that_is_succeeded_soon_is_measured() {
        let mut script = with_a_waiter();
        script
            .killed("a", 5_010)
            .elected("b", 2, 7_000)
            .ended("b", 2, 8_000);
        let findings = script.check();
        assert_eq!(found(&findings), []);
        let [handover] = findings.handovers[..] else {
            panic!("{:?}", findings.handovers);
        };
        assert_eq!(
            (handover.way, handover.took),
            (Way::Killed, Duration::from_millis(1_990))
        );
    }

    #[test]
    fn a_killed_leader_that_is_succeeded_late_is_found() {
        let mut script = with_a_waiter();
        script
            .killed("a", 5_010)
            .elected("b", 2, 8_020)
            .ended("b", 2, 9_000);
        assert_eq!(found(&script.check()), [Invariant::I10]);
    }

    #[test]
    fn a_leader_that_resigns_is_succeeded_at_once() {
        let mut script = with_a_waiter();
        script.resigning("a", 1, 5_001).ended("a", 1, 5_002);
        script.elected("b", 2, 5_003).ended("b", 2, 6_000);
        let findings = script.check();
        assert_eq!(found(&findings), []);
        assert_eq!(findings.handovers[0].took, Duration::from_millis(2));
    }

    #[test]
    fn a_leader_that_resigns_and_is_succeeded_late_is_found() {
        let mut script = with_a_waiter();
        script.resigning("a", 1, 5_001).ended("a", 1, 5_002);
        script.elected("b", 2, 7_100).ended("b", 2, 7_200);
        assert_eq!(found(&script.check()), [Invariant::I10]);
    }

    #[test]
    fn resigning_soon_after_a_fault_or_without_a_successor_promises_nothing() {
        let mut script = with_a_waiter();
        script.fault(Kind::BlackHole, 3_000, 4_100);
        script.resigning("a", 1, 5_001).ended("a", 1, 5_002);
        script.elected("b", 2, 7_100).ended("b", 2, 7_200);
        assert_eq!(found(&script.check()), []);
        let mut script = with_a_waiter();
        script.frozen("b", 4_800, 5_050);
        script.resigning("a", 1, 5_001).ended("a", 1, 5_002);
        script.elected("b", 2, 7_100).ended("b", 2, 7_200);
        assert_eq!(found(&script.check()), []);
    }

    #[test]
    fn without_a_queue_a_fault_disturbs_only_until_those_who_wait_are_back() {
        for (healed, violations) in [(100, vec![]), (20, vec![Invariant::I10])] {
            let mut script = with_a_waiter();
            script.unfair().fault(Kind::BlackHole, 10, healed);
            script.resigning("a", 1, 5_050).ended("a", 1, 5_051);
            script.elected("b", 2, 7_100).ended("b", 2, 7_200);
            assert_eq!(found(&script.check()), violations, "{healed}");
        }
    }
}
