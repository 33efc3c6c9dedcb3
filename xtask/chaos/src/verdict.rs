//! Whether a run counts, and whether it kept what was promised.

use std::time::Duration;

use sd_core::port::{Guarantee, Safety};

use crate::backend::Backend;
use crate::check::{Findings, Invariant, Violation, Way};
use crate::history::{At, Election, Event};
use crate::kind::Kind;
use crate::story::Story;

/// For how long what a server does is put down to its having been frozen. etcd ends leases 16 at a time and gives up on each after 7 s:
/// when those time out that it sent off as it went on, it turns to the next, though another member leads by then.
const AFTER_FREEZING: Duration = Duration::from_secs(9);

/// How long a primary that has been disturbed may be replaced afterwards, and the former one reached by some.
const AFTER_FAILOVER: Duration = Duration::from_secs(15);

/// What `Safety` warns of that a frozen server can do when it goes on.
const OF_FREEZING: [&str; 3] = [
    "lease-revoked-by-stuck-leader",
    "lease-renewed-after-revoke",
    "lease-ended-by-hung-member",
];

/// What happened at one site.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) label: String,
    /// Whether another server takes the place of one that is lost.
    pub(crate) fails_over: bool,
    pub(crate) safety: Safety,
    pub(crate) story: Story,
    pub(crate) findings: Findings,
}

/// How much has to happen for a run to count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bars {
    faults: usize,
    each_kind: usize,
    terms: usize,
}

impl Bars {
    /// In 20 minutes 200 faults, each kind 10 times, and 100 terms. Over Consul, whose terms last longer and which has fewer kinds, 140
    /// faults.
    pub(crate) fn of_minutes(backend: Backend, minutes: u32) -> Self {
        let minutes = usize::try_from(minutes).unwrap_or(usize::MAX);
        let each_minute = match backend {
            Backend::Etcd | Backend::Zk | Backend::Redis => 10,
            Backend::Consul => 7,
        };
        Self {
            faults: each_minute * minutes,
            each_kind: minutes / 2,
            terms: 5 * minutes,
        }
    }

    /// What a quick run plays.
    pub(crate) fn quick(backend: Backend) -> Self {
        let faults = match backend {
            Backend::Etcd => 10,
            Backend::Consul => 5,
            Backend::Zk => 6,
            Backend::Redis => 7,
        };
        Self {
            faults,
            each_kind: 0,
            terms: faults,
        }
    }
}

/// All that was seen in a run, held against the bars.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) backend: Backend,
    pub(crate) visits: Vec<Visit>,
    bars: Bars,
}

/// Where a violation belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// It must not be.
    Ours,
    /// A server was frozen that does not survive this without harm.
    Frozen,
    /// The elections are best effort, only strict ones promise it, and a server was being replaced by another. Counted.
    NotPromised,
    /// It was made by the candidate that must be caught.
    Naive,
}

/// A figure that must be reached, or not be.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) what: String,
    pub(crate) limit: String,
    pub(crate) measured: String,
    pub(crate) met: bool,
}

impl Bar {
    fn exactly(what: &str, wanted: usize, measured: usize) -> Self {
        Self {
            what: what.to_owned(),
            limit: wanted.to_string(),
            measured: measured.to_string(),
            met: measured == wanted,
        }
    }

    fn at_least(what: &str, wanted: usize, measured: usize) -> Self {
        Self {
            what: what.to_owned(),
            limit: format!("≥ {wanted}"),
            measured: measured.to_string(),
            met: measured >= wanted,
        }
    }
}

impl Visit {
    fn class(&self, violation: &Violation) -> Class {
        let follows = matches!(violation.invariant, Invariant::I1 | Invariant::I4);
        match violation.election {
            Election::Naive => Class::Naive,
            // A resignation that the former primary has confirmed may be lost with the rest.
            _ if (violation.invariant.needs() == Guarantee::Strict
                || violation.way == Some(Way::Resigned))
                && self.is_best_effort()
                && self.failed_over(violation.at) =>
            {
                Class::NotPromised
            }
            _ if follows && self.is_harmed_by_freezing() && self.was_frozen(violation.at) => {
                Class::Frozen
            }
            _ => Class::Ours,
        }
    }

    pub(crate) fn is_best_effort(&self) -> bool {
        self.safety.guarantee == Guarantee::BestEffort
    }

    /// Whether `Safety` warns of what a frozen server does when it goes on.
    fn is_harmed_by_freezing(&self) -> bool {
        let mut warnings = self.safety.warnings();
        warnings.any(|note| OF_FREEZING.contains(&note.code))
    }

    /// Whether the server that led its cluster was frozen until then or shortly before: no other one ends leases.
    fn was_frozen(&self, at: At) -> bool {
        self.story.rounds.iter().any(|round| {
            round.kind.freezes_a_server()
                && round.leads_cluster
                && round.span.since <= at
                && at <= round.span.until.plus(AFTER_FREEZING)
        })
    }

    /// Whether another server may have taken the place of the one that led its cluster then or shortly before.
    fn failed_over(&self, at: At) -> bool {
        self.fails_over
            && self.story.rounds.iter().any(|round| {
                round.kind.impairs_servers()
                    && round.leads_cluster
                    && round.span.since <= at
                    && at <= round.span.until.plus(AFTER_FAILOVER)
            })
    }

    pub(crate) fn terms(&self) -> usize {
        let elected = |election| self.story.elected_of(election).len();
        Election::OURS.into_iter().map(elected).sum()
    }

    /// How often our candidates were exposed to it.
    pub(crate) fn faults(&self, kind: Kind) -> usize {
        let rounds = self.story.rounds.iter();
        rounds
            .filter(|round| round.kind == kind && round.is_ours())
            .count()
    }
}

impl Verdict {
    pub(crate) fn new(backend: Backend, visits: Vec<Visit>, bars: Bars) -> Self {
        Self {
            backend,
            visits,
            bars,
        }
    }

    /// The kinds of fault that the run has to have.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        Kind::of_backend(self.backend)
    }

    /// Whether nothing was violated and the run counts.
    pub(crate) fn is_good(&self) -> bool {
        self.bars().iter().all(|bar| bar.met)
    }

    pub(crate) fn bars(&self) -> Vec<Bar> {
        let kinds = self.kinds().into_iter();
        let counts: Vec<usize> = kinds.map(|kind| self.faults(kind)).collect();
        let terms = self.visits.iter().map(Visit::terms).sum();
        let rarest = counts.iter().min().copied().unwrap_or(0);
        let ours = self.count(Class::Ours, |_| true);
        let failed = self.visits.iter().flat_map(|visit| &visit.story.lines);
        let failed = failed
            .filter(|line| matches!(line.event, Event::Failed { .. }))
            .count();
        let never = |violation: &Violation| {
            matches!(
                violation.invariant,
                Invariant::I2 | Invariant::I3 | Invariant::I7
            )
        };
        vec![
            Bar::exactly(
                "violations of I2, I3 and I7",
                0,
                self.count(Class::Ours, never),
            ),
            Bar::exactly("violations of all invariants", 0, ours),
            Bar::at_least(
                "violations of I1 by the naive candidate",
                1,
                self.count(Class::Naive, |violation| {
                    violation.invariant == Invariant::I1
                }),
            ),
            Bar::exactly("campaigns that failed instead of waiting", 0, failed),
            Bar::at_least("faults", self.bars.faults, counts.iter().sum()),
            Bar::at_least("faults of the rarest kind", self.bars.each_kind, rarest),
            Bar::at_least(
                "terms, without those of the naive candidate",
                self.bars.terms,
                terms,
            ),
        ]
    }

    pub(crate) fn faults(&self, kind: Kind) -> usize {
        self.visits.iter().map(|visit| visit.faults(kind)).sum()
    }

    pub(crate) fn violations(&self) -> impl Iterator<Item = (&Visit, &Violation, Class)> {
        self.visits.iter().flat_map(|visit| {
            let violations = visit.findings.violations.iter();
            violations.map(move |violation| (visit, violation, visit.class(violation)))
        })
    }

    pub(crate) fn count(&self, class: Class, is: impl Fn(&Violation) -> bool) -> usize {
        self.violations()
            .filter(|(_, violation, of)| *of == class && is(violation))
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::script::Script;
    use crate::check::{Invariant, check};

    const NO_BARS: Bars = Bars {
        faults: 0,
        each_kind: 0,
        terms: 0,
    };

    /// Beliefs that overlap at 15 s, after a server that is warned of, or not, was frozen until `healed`.
    fn visit(warned: bool, healed: u64) -> Visit {
        let mut script = Script::default();
        script.fault(Kind::FreezeClusterLeader, 1_000, healed);
        script
            .believed("a", 1, 1_000, 15_001)
            .believed("b", 2, 15_000, 16_000);
        visit_of(&script, warned)
    }

    fn visit_of(script: &Script, warned: bool) -> Visit {
        let story = script.story();
        let mut safety = Safety::strict();
        safety
            .notes
            .extend(warned.then_some(sd_core::port::SafetyNote::new(
                OF_FREEZING[0],
                true,
                "it is broken".into(),
            )));
        Visit {
            label: "etcd".to_owned(),
            fails_over: true,
            safety,
            findings: check(&story),
            story,
        }
    }

    fn classes(visit: &Visit) -> Vec<(Invariant, Class)> {
        let violations = visit.findings.violations.iter();
        violations
            .map(|violation| (violation.invariant, visit.class(violation)))
            .collect()
    }

    #[test]
    fn an_overlap_is_put_apart_only_soon_after_a_server_that_is_warned_of_was_frozen() {
        for (warned, healed, class) in [
            (true, 14_900, Class::Frozen),
            (true, 7_000, Class::Frozen),
            (true, 5_900, Class::Ours),
            (false, 14_900, Class::Ours),
        ] {
            assert_eq!(classes(&visit(warned, healed)), [(Invariant::I1, class)]);
        }
    }

    #[test]
    fn an_overlap_is_not_put_apart_if_the_frozen_server_did_not_lead_its_cluster() {
        for (leads_cluster, class) in [(true, Class::Frozen), (false, Class::Ours)] {
            let mut script = Script::default();
            script.fault_of(leads_cluster, Kind::FreezeServer, 1_000, 4_900);
            script
                .believed("a", 1, 1_000, 5_001)
                .believed("b", 2, 5_000, 6_000);
            let visit = visit_of(&script, true);
            assert_eq!(classes(&visit), [(Invariant::I1, class)]);
        }
    }

    #[test]
    fn what_an_operator_does_to_the_naive_candidate_alone_is_no_fault_of_ours() {
        let mut script = Script::default();
        script.fault(Kind::DeleteEntry, 1_000, 1_100);
        script.removed(Election::Naive, 7, 1_050);
        script.fault(Kind::DeleteEntry, 2_000, 2_100);
        script.removed(Election::Naive, 9, 2_040);
        script.removed(Election::Delayed, 8, 2_050);
        script.fault(Kind::RevokeLease, 3_000, 3_100);
        script.fault(Kind::KillCandidate, 4_000, 4_100);
        let visit = visit_of(&script, false);
        let counted = [Kind::DeleteEntry, Kind::RevokeLease, Kind::KillCandidate]
            .map(|kind| visit.faults(kind));
        assert_eq!(counted, [1, 0, 1]);
        let bars = Verdict::new(Backend::Etcd, vec![visit], NO_BARS).bars();
        let faults = bars.iter().find(|bar| bar.what == "faults");
        assert_eq!(faults.map(|bar| bar.measured.as_str()), Some("2"));
    }

    #[test]
    fn nothing_but_an_overlap_is_put_apart() {
        let mut script = Script::default();
        script.fault(Kind::FreezeServer, 1_000, 4_900);
        script
            .elected("a", 2, 4_000)
            .elected("b", 1, 5_000)
            .ended_all();
        let visit = visit_of(&script, true);
        assert_eq!(classes(&visit), [(Invariant::I2, Class::Ours)]);
    }

    /// Beliefs overlap, tokens are equal, and one term ends twice.
    #[test]
    fn what_only_strict_elections_promise_is_counted_apart_where_best_effort_ones_fail_over() {
        let mut script = Script::default();
        script.fault(Kind::KillClusterLeader, 500, 900);
        script.elected("a", 1, 1_000).elected("b", 1, 1_500);
        script
            .believed("a", 1, 1_000, 2_000)
            .believed("b", 1, 1_500, 3_000);
        script.ended_all().ended("a", 1, 2_100);
        let mut visit = visit_of(&script, false);
        for (guarantee, fails_over, class) in [
            (Guarantee::Strict, true, Class::Ours),
            (Guarantee::BestEffort, false, Class::Ours),
            (Guarantee::BestEffort, true, Class::NotPromised),
        ] {
            (visit.safety.guarantee, visit.fails_over) = (guarantee, fails_over);
            let classes = classes(&visit);
            for (invariant, of) in [
                (Invariant::I1, class),
                (Invariant::I2, class),
                (Invariant::I7, Class::Ours),
            ] {
                assert!(
                    classes.contains(&(invariant, of)),
                    "{invariant}: {classes:?}"
                );
            }
        }
        let verdict = Verdict::new(Backend::Etcd, vec![visit], NO_BARS);
        let excused = |violation: &Violation| violation.invariant.needs() == Guarantee::Strict;
        assert_eq!(verdict.count(Class::Ours, excused), 0);
        assert!(!verdict.is_good());
    }

    /// A killed leader has confirmed nothing that a failover could lose.
    #[test]
    fn a_late_successor_after_a_failover_is_excused_only_if_the_leader_resigned() {
        for (resigns, class) in [(true, Class::NotPromised), (false, Class::Ours)] {
            let mut script = Script::default();
            script.fault(Kind::KillClusterLeader, 500, 900);
            script.campaigning("b", 1_000).waiting("b", 1_010);
            script.elected("a", 1, 1_020).believed("a", 1, 1_020, 5_000);
            if resigns {
                script.resigning("a", 1, 5_001).ended("a", 1, 5_002);
            } else {
                script.killed("a", 5_010);
            }
            script.elected("b", 2, 8_100).ended("b", 2, 9_000);
            let mut visit = visit_of(&script, false);
            visit.safety.guarantee = Guarantee::BestEffort;
            assert_eq!(classes(&visit), [(Invariant::I10, class)], "{resigns}");
        }
    }

    #[test]
    fn a_run_counts_only_if_the_naive_candidate_was_caught() {
        let verdict = Verdict::new(Backend::Etcd, vec![visit(true, 14_900)], NO_BARS);
        let missed: Vec<_> = verdict.bars().into_iter().filter(|bar| !bar.met).collect();
        let [missed] = &missed[..] else {
            panic!("{missed:?}");
        };
        assert!(missed.what.contains("naive"), "{missed:?}");
        assert!(!verdict.is_good());
    }

    #[test]
    fn a_run_has_to_be_as_full_as_it_is_long() {
        let bars = Bars::of_minutes(Backend::Etcd, 20);
        assert_eq!((bars.faults, bars.each_kind, bars.terms), (200, 10, 100));
    }
}
