//! Whether every reader saw what was there.
//!
//! Three promises, for each instance and each reader:
//! - **D1** it is seen at most 2 s after it was registered, after the reader was started, or after the last fault that concerns it ended;
//! - **D2** it is seen no longer than 2 s after it withdrew, or after its record had to be gone because it was killed, and not again
//!   after that; faults between the server and the reader, and of the server, that come within that time begin it again; 30 s more if it
//!   is marked as held at last. What was never registered is never seen;
//! - **D3** one that lives does not vanish, but for a fault of its own process or of the servers that has lasted for at least half a
//!   time-to-live by then, or an operator who removes its record.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::discovery::timeline::{Cause, Disturbance, End, Life, Stretch, Timeline, View};
use crate::history::{At, Reader};

/// From when something can be seen to when it is.
pub(super) const SOON: Duration = Duration::from_secs(2);
/// How much longer an instance may stay that is marked as held.
const HOLD: Duration = Duration::from_secs(30);

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    D1,
    D2,
    D3,
}

impl Promise {
    pub(super) const ALL: [Self; 3] = [Self::D1, Self::D2, Self::D3];

    pub(super) fn says(self) -> &'static str {
        match self {
            Self::D1 => "what lives is seen",
            Self::D2 => "what is dead is not",
            Self::D3 => "what lives does not vanish",
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) promise: Promise,
    pub(crate) reader: Reader,
    pub(crate) at: At,
    pub(crate) what: String,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) violations: Vec<Violation>,
    /// How often a reader of ours had to see an instance.
    pub(crate) sights: usize,
    /// From when our readers could see an instance to when they did.
    pub(crate) seen_after: Vec<Duration>,
    /// From a withdrawal to when our readers saw it.
    pub(crate) withdrawn_after: Vec<Duration>,
    /// From a kill -9 to when our readers saw it, where no server was disturbed.
    pub(crate) gone_after: Vec<Duration>,
}

/// `ttl`: of all instances. `gone_within`: how long a server keeps the record of a process that was killed.
pub(super) fn check(timeline: &Timeline, ttl: Duration, gone_within: Duration) -> Findings {
    let mut findings = Findings::default();
    for view in &timeline.views {
        check_strangers(timeline, view, &mut findings);
        for life in &timeline.lives {
            let pair = Pair {
                timeline,
                life,
                view,
                ttl,
                gone_within,
            };
            pair.check(&mut findings);
        }
    }
    findings
}

/// D2 for what was seen without ever having been registered.
fn check_strangers(timeline: &Timeline, view: &View, findings: &mut Findings) {
    let known: BTreeSet<&str> = timeline.lives.iter().map(|life| &*life.id).collect();
    let mut strangers: BTreeMap<&str, At> = BTreeMap::new();
    for (at, ready, _) in &view.sets {
        for id in ready.iter().filter(|id| !known.contains(id.as_str())) {
            strangers.entry(id).or_insert(*at);
        }
    }
    for (id, at) in strangers {
        findings.violations.push(Violation {
            promise: Promise::D2,
            reader: view.reader,
            at,
            what: format!("{id} at {}: seen, but never registered", view.process),
        });
    }
}

struct Pair<'a> {
    timeline: &'a Timeline,
    life: &'a Life,
    view: &'a View,
    ttl: Duration,
    gone_within: Duration,
}

impl Pair<'_> {
    fn check(&self, findings: &mut Findings) {
        let seen = self.view.seen(&self.life.id);
        let view_ends = self.view.life.until.unwrap_or(self.timeline.until);
        let lives_until = self.life.end.map_or(view_ends, |(at, _)| at.min(view_ends));
        if let Some(registered) = self.life.registered {
            let could_be_seen = registered.max(self.view.life.since);
            if could_be_seen < lives_until {
                self.check_seen(&seen, could_be_seen, lives_until, findings);
                self.check_vanishing(&seen, (registered, lives_until), findings);
            }
        }
        if let Some((at, how)) = self.life.end {
            self.check_gone(&seen, (at, how), view_ends, findings);
        }
    }

    /// D1.
    fn check_seen(&self, seen: &[(Stretch, bool)], from: At, until: At, findings: &mut Findings) {
        let is_ours = self.view.reader == Reader::Ours;
        findings.sights += usize::from(is_ours);
        let mut absent_since = Some(from);
        let gaps = seen.iter().map(|(stretch, _)| *stretch).chain([Stretch {
            since: until,
            until: None,
        }]);
        for stretch in gaps {
            if let Some(since) = absent_since.filter(|since| *since < stretch.since) {
                let end = stretch.since.min(until);
                let possible = self.last_hindered(since, end, |one| {
                    one.concerns(&self.life.seat) || one.concerns(&self.view.seat)
                });
                if end.since(possible) > SOON {
                    self.violated(findings, Promise::D1, end, || {
                        format!("not seen for {:?}", end.since(possible))
                    });
                } else if is_ours && end < until {
                    findings.seen_after.push(end.since(possible));
                }
            }
            let Some(next) = stretch.until else {
                return;
            };
            if next >= until {
                return;
            }
            absent_since = Some(next.max(from));
        }
    }

    /// From when on, at the earliest, no disturbance stood between the instance and the reader, as far as it matters until `end`.
    fn last_hindered(&self, since: At, end: At, hinders: impl Fn(&Disturbance) -> bool) -> At {
        let mut possible = since;
        loop {
            let hindered = self.timeline.disturbances.iter().filter(|one| {
                hinders(one) && one.stretch.meets(possible, possible.plus(SOON).min(end))
            });
            let later = hindered.map(|one| one.stretch.until.unwrap_or(end)).max();
            match later {
                Some(later) if later > possible => possible = later,
                _ => return possible,
            }
        }
    }

    /// D2.
    fn check_gone(
        &self,
        seen: &[(Stretch, bool)],
        (died, how): (At, End),
        view_ends: At,
        findings: &mut Findings,
    ) {
        let is_ours = self.view.reader == Reader::Ours;
        for (stretch, held) in seen {
            let end = stretch.until.unwrap_or(view_ends);
            if end <= died {
                continue;
            }
            // However late this stretch began: the dead must not come back.
            let (possible, was_disturbed) = self.must_be_gone(died, how, end);
            let patience = if *held { SOON + HOLD } else { SOON };
            if end.since(possible) > patience {
                self.violated(findings, Promise::D2, end, || {
                    format!(
                        "still seen {:?} after it had to be gone",
                        end.since(possible)
                    )
                });
            } else if is_ours && stretch.until.is_some() && !was_disturbed && !held {
                match how {
                    End::Withdrawn => findings.withdrawn_after.push(end.since(died)),
                    End::Killed => findings.gone_after.push(end.since(died)),
                }
            }
        }
    }

    /// From when on, at the earliest, the reader could know that the instance is gone, and whether that was put off.
    fn must_be_gone(&self, died: At, how: End, end: At) -> (At, bool) {
        let mut server_let_go = match how {
            End::Withdrawn => died,
            End::Killed => died.plus(self.gone_within),
        };
        let mut was_disturbed = false;
        // A server that was not there gives what it keeps a whole time-to-live again; so does a withdrawal that could not be told.
        let all = self.timeline.disturbances.iter();
        for one in all.filter(|one| one.cause == Cause::Fault) {
            let concerns =
                one.seat.is_none() || (how == End::Withdrawn && one.concerns(&self.life.seat));
            if concerns && one.stretch.meets(died, server_let_go.plus(SOON)) {
                let healed = one.stretch.until.unwrap_or(end);
                server_let_go = server_let_go.max(healed.plus(self.gone_within));
                was_disturbed = true;
            }
        }
        let told = self.last_hindered(server_let_go, end, |one| one.concerns(&self.view.seat));
        was_disturbed |= told > server_let_go;
        (told, was_disturbed)
    }

    /// D3.
    fn check_vanishing(
        &self,
        seen: &[(Stretch, bool)],
        (registered, until): (At, At),
        findings: &mut Findings,
    ) {
        let vanished = seen.iter().filter_map(|(stretch, _)| stretch.until);
        for at in vanished.filter(|at| *at < until && *at > registered) {
            let since = at.minus(self.gone_within + SOON);
            let excused = self.timeline.disturbances.iter().any(|one| {
                one.concerns(&self.life.seat)
                    && one.stretch.meets(since, at)
                    && (one.cause == Cause::Operator || one.lasted(at) >= self.ttl / 2)
            });
            if !excused {
                self.violated(findings, Promise::D3, at, || "vanished".to_owned());
            }
        }
    }

    fn violated(
        &self,
        findings: &mut Findings,
        promise: Promise,
        at: At,
        what: impl FnOnce() -> String,
    ) {
        findings.violations.push(Violation {
            promise,
            reader: self.view.reader,
            at,
            what: format!("{} at {}: {}", self.life.id, self.view.process, what()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Event, Line};
    use crate::kind::Kind;

    const TTL: Duration = Duration::from_secs(3);
    const GONE_WITHIN: Duration = Duration::from_secs(4);
    const ID: &str = "127.0.0.1:1-a";

    /// Lines at times in milliseconds.
    struct Script(Vec<Line>);

    impl Script {
        /// With a reader that was started.
        fn new() -> Self {
            let mut script = Self(Vec::new());
            script.line(0, "r1.1", Event::Started);
            script
        }

        fn line(&mut self, millis: u64, node: &str, event: Event) -> &mut Self {
            self.0.push(Line {
                at: At::from_start(Duration::from_millis(millis)),
                node: node.to_owned(),
                event,
            });
            self
        }

        fn registered(&mut self, millis: u64) -> &mut Self {
            self.registering(millis);
            self.line(millis, "s1.1", Event::Registered { id: ID.to_owned() })
        }

        fn registering(&mut self, millis: u64) -> &mut Self {
            self.line(millis, "s1.1", Event::Registering { id: ID.to_owned() })
        }

        fn killed(&mut self, millis: u64) -> &mut Self {
            self.line(millis, "s1.1", Event::Killed)
        }

        fn lists(&mut self, millis: u64, ids: &[&str]) -> &mut Self {
            self.lists_held(millis, ids, &[])
        }

        fn lists_held(&mut self, millis: u64, ids: &[&str], held: &[&str]) -> &mut Self {
            let set = |ids: &[&str]| -> BTreeSet<String> {
                ids.iter().map(ToString::to_string).collect()
            };
            let event = Event::Listed {
                reader: Reader::Ours,
                ready: set(ids),
                held: set(held),
            };
            self.line(millis, "r1.1", event)
        }

        fn fault(&mut self, target: &str, since: u64, until: u64) -> &mut Self {
            self.fault_of(Kind::Cut, target, since, until)
        }

        fn fault_of(&mut self, kind: Kind, target: &str, since: u64, until: u64) -> &mut Self {
            let round = u32::try_from(since).unwrap();
            let fault = Event::Fault {
                round,
                kind,
                target: target.to_owned(),
                leads_cluster: false,
            };
            self.line(since, "run", fault);
            self.line(until, "run", Event::Healed { round })
        }

        fn stood_still(&mut self, since: u64, until: u64) -> &mut Self {
            let since = At::from_start(Duration::from_millis(since));
            self.line(until, "run", Event::StoodStill { since })
        }

        /// By our reader.
        fn broken(&mut self) -> Vec<Promise> {
            self.broken_by(Reader::Ours)
        }

        fn broken_by(&mut self, reader: Reader) -> Vec<Promise> {
            self.line(100_000, "run", Event::Ending);
            let lines = crate::history::merged(self.0.clone());
            let found = check(&Timeline::new(&lines), TTL, GONE_WITHIN).violations;
            found
                .into_iter()
                .filter(|violation| violation.reader == reader)
                .map(|violation| violation.promise)
                .collect()
        }
    }

    #[test]
    fn what_is_seen_soon_and_gone_in_time_breaks_nothing() {
        let mut script = Script::new();
        script.lists(0, &[]).registered(1_000).lists(2_900, &[ID]);
        script.killed(10_000).lists(15_900, &[]);
        assert_eq!(script.broken(), []);
    }

    #[test]
    fn what_is_seen_late_must_have_been_hindered_until_shortly_before() {
        let late = |target: &str, healed| {
            let mut script = Script::new();
            script.lists(0, &[]).registered(1_000).lists(9_000, &[ID]);
            script.fault(target, 1_500, healed);
            script.broken()
        };
        for target in ["s1", "r1", "agent"] {
            assert_eq!(late(target, 7_100), []);
            assert_eq!(late(target, 6_900), [Promise::D1]);
        }
        assert_eq!(
            late("s2", 8_900),
            [Promise::D1],
            "it concerns another process"
        );
    }

    #[test]
    fn what_was_never_seen_is_noticed() {
        let mut script = Script::new();
        script.lists(0, &[]).registered(1_000);
        assert_eq!(script.broken(), [Promise::D1]);
    }

    #[test]
    fn a_reader_that_never_learns_anything_is_noticed_whichever_it_is() {
        for reader in [Reader::Ours, Reader::Naive] {
            let mut script = Script::new();
            script.registered(1_000);
            assert_eq!(script.broken_by(reader), [Promise::D1]);
        }
    }

    #[test]
    fn what_was_killed_must_go_unless_it_is_held_or_the_servers_were_away() {
        let gone = |at, held: &[&str], healed: Option<u64>| {
            let mut script = Script::new();
            script.lists(0, &[]).registered(1_000).lists(1_100, &[ID]);
            script
                .killed(10_000)
                .lists_held(10_001, &[ID], held)
                .lists(at, &[]);
            if let Some(healed) = healed {
                script.fault("agent", 11_000, healed);
            }
            script.broken()
        };
        assert_eq!(gone(16_100, &[], None), [Promise::D2]);
        assert_eq!(gone(45_900, &[ID], None), []);
        assert_eq!(gone(46_100, &[ID], None), [Promise::D2]);
        assert_eq!(gone(25_900, &[], Some(20_000)), []);
        assert_eq!(gone(26_100, &[], Some(20_000)), [Promise::D2]);
    }

    #[test]
    fn what_withdrew_must_go_at_once() {
        for (gone, broken) in [(11_900, vec![]), (12_100, vec![Promise::D2])] {
            let mut script = Script::new();
            script.lists(0, &[]).registered(1_000).lists(1_100, &[ID]);
            script.line(10_000, "s1.1", Event::Withdrawing { id: ID.to_owned() });
            script.lists(gone, &[]);
            assert_eq!(script.broken(), broken);
        }
    }

    #[test]
    fn what_lives_may_vanish_only_once_a_fault_of_its_own_or_of_the_servers_was_long() {
        let vanished = |target: &str, lasts: u64, after: u64| {
            let mut script = Script::new();
            script.registered(1_000).lists(1_100, &[ID]);
            script.fault(target, 10_000, 10_000 + lasts);
            script.lists(10_000 + after, &[]);
            script.lists(10_100 + lasts.max(after), &[ID]);
            script.broken()
        };
        assert_eq!(vanished("r1", 3_000, 2_900), [Promise::D3]);
        assert_eq!(vanished("s1", 3_000, 2_900), []);
        assert_eq!(vanished("agent", 3_000, 2_900), []);
        assert_eq!(
            vanished("agent", 3_000, 100),
            [Promise::D3],
            "the fault had only begun"
        );
        assert_eq!(vanished("s1", 1_400, 2_900), [Promise::D3]);
        assert_eq!(vanished("s1", 1_600, 2_900), []);
    }

    #[test]
    fn what_an_operator_removes_may_vanish_at_once_and_must_be_back_soon_after_its_owner_learned_it()
     {
        for (back, broken) in [(13_900, vec![]), (14_100, vec![Promise::D1])] {
            let mut script = Script::new();
            script.registered(1_000).lists(1_100, &[ID]);
            script.fault_of(Kind::DeleteEntry, "s1", 10_000, 12_000);
            script.lists(10_100, &[]).lists(back, &[ID]);
            assert_eq!(script.broken(), broken);
        }
    }

    #[test]
    fn a_machine_that_stood_still_puts_off_what_is_owed_then_and_no_more() {
        let gone = |at, (since, until)| {
            let mut script = Script::new();
            script.registered(1_000).lists(1_100, &[ID]);
            script.killed(10_000).lists(at, &[]);
            script.stood_still(since, until);
            script.broken()
        };
        assert_eq!(gone(16_100, (12_000, 13_000)), [Promise::D2]);
        assert_eq!(gone(18_900, (15_000, 16_000)), []);
        assert_eq!(gone(19_100, (15_000, 16_000)), [Promise::D2]);
    }

    #[test]
    fn the_dead_must_not_come_back() {
        let mut script = Script::new();
        script.registered(1_000).lists(1_100, &[ID]);
        script.killed(10_000).lists(15_000, &[]);
        script.lists(70_000, &[ID]).lists(71_000, &[]);
        assert_eq!(script.broken(), [Promise::D2]);
    }

    #[test]
    fn what_was_held_once_must_still_be_held_when_it_goes() {
        let mut script = Script::new();
        script.registered(1_000).lists(1_100, &[ID]);
        script.lists_held(5_000, &[ID], &[ID]).lists(6_000, &[ID]);
        script.killed(10_000).lists(16_100, &[]);
        assert_eq!(script.broken(), [Promise::D2]);
    }

    #[test]
    fn what_was_never_registered_must_not_be_seen() {
        let mut script = Script::new();
        script.lists(1_000, &[ID]).lists(1_100, &[]);
        assert_eq!(script.broken(), [Promise::D2]);
    }

    #[test]
    fn what_was_killed_while_it_registered_may_be_seen_until_its_record_has_to_be_gone() {
        for (gone, broken) in [(6_900, vec![]), (7_100, vec![Promise::D2])] {
            let mut script = Script::new();
            script.registering(1_000).killed(1_001);
            script.lists(1_100, &[ID]).lists(gone, &[]);
            assert_eq!(script.broken(), broken);
        }
    }
}
