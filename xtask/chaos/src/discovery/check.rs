//! Whether every reader saw what was there.
//!
//! Three promises, for each instance and each reader:
//! - **D1** it is seen at most 2 s after it was registered, after the reader was started, or after the last fault that concerns it ended;
//! - **D2** it is seen no longer than 2 s after it withdrew, or after its record had to be gone because it was killed; faults between the
//!   server and the reader, and of the server, begin that time again; 30 s more while it is marked as held;
//! - **D3** one that lives does not vanish, but for a fault of its own process or of the servers that lasts for at least half a
//!   time-to-live, or an operator who removes its record.

use std::fmt;
use std::time::Duration;

use crate::discovery::timeline::{End, Life, Stretch, Timeline, View};
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

/// `gone_within`: how long a server keeps the record of a process that was killed.
pub(super) fn check(timeline: &Timeline, gone_within: Duration) -> Findings {
    let mut findings = Findings::default();
    for view in &timeline.views {
        for life in &timeline.lives {
            let pair = Pair {
                timeline,
                life,
                view,
                gone_within,
            };
            pair.check(&mut findings);
        }
    }
    findings
}

struct Pair<'a> {
    timeline: &'a Timeline,
    life: &'a Life,
    view: &'a View,
    gone_within: Duration,
}

impl Pair<'_> {
    fn check(&self, findings: &mut Findings) {
        let seen = self.view.seen(&self.life.id);
        let view_ends = self.view.life.until.unwrap_or(self.timeline.until);
        let lives_until = self.life.end.map_or(view_ends, |(at, _)| at.min(view_ends));
        let could_be_seen = self.life.since.max(self.view.life.since);
        if could_be_seen < lives_until {
            self.check_seen(&seen, could_be_seen, lives_until, findings);
            self.check_vanishing(&seen, lives_until, findings);
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
                let possible = self.last_hindered(since, end);
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

    /// From when on, at the earliest, nothing stood between the instance and the reader, as far as it matters until `end`.
    fn last_hindered(&self, since: At, end: At) -> At {
        let mut possible = since;
        loop {
            let hindered = self.timeline.disturbances.iter().filter(|one| {
                (one.concerns(&self.life.seat) || one.concerns(&self.view.seat))
                    && one.stretch.meets(possible, possible.plus(SOON).min(end))
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
            let (possible, was_disturbed) = self.must_be_gone(died.max(stretch.since), how, end);
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
    fn must_be_gone(&self, from: At, how: End, end: At) -> (At, bool) {
        let mut server_let_go = match how {
            End::Withdrawn => from,
            End::Killed => from.plus(self.gone_within),
        };
        let mut was_disturbed = false;
        // A server that was not there gives what it keeps a whole time-to-live again; so does a withdrawal that could not be told.
        for one in &self.timeline.disturbances {
            let concerns =
                one.seat.is_none() || (how == End::Withdrawn && one.concerns(&self.life.seat));
            if concerns && one.stretch.meets(from, server_let_go.plus(SOON)) {
                let healed = one.stretch.until.unwrap_or(end);
                server_let_go = server_let_go.max(healed.plus(self.gone_within));
                was_disturbed = true;
            }
        }
        let told = self.last_hindered_reader(server_let_go, end);
        was_disturbed |= told > server_let_go;
        (told, was_disturbed)
    }

    fn last_hindered_reader(&self, since: At, end: At) -> At {
        let mut possible = since;
        for one in &self.timeline.disturbances {
            if one.concerns(&self.view.seat) && one.stretch.meets(possible, possible.plus(SOON)) {
                possible = possible.max(one.stretch.until.unwrap_or(end));
            }
        }
        possible
    }

    /// D3.
    fn check_vanishing(&self, seen: &[(Stretch, bool)], until: At, findings: &mut Findings) {
        let vanished = seen.iter().filter_map(|(stretch, _)| stretch.until);
        for at in vanished.filter(|at| *at < until && *at > self.life.since) {
            let since = at.minus(self.gone_within + SOON);
            let excused = self.timeline.disturbances.iter().any(|one| {
                one.concerns(&self.life.seat)
                    && one.stretch.meets(since, at)
                    && (one.removes || one.lasts(self.gone_within / 3))
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
    use std::collections::BTreeSet;

    use super::*;
    use crate::history::{Event, Line};
    use crate::kind::Kind;

    const GONE_WITHIN: Duration = Duration::from_secs(4);
    const ID: &str = "127.0.0.1:1-a";

    /// Lines at times in milliseconds.
    #[derive(Default)]
    struct Script(Vec<Line>);

    impl Script {
        fn line(&mut self, millis: u64, node: &str, event: Event) -> &mut Self {
            self.0.push(Line {
                at: At::from_start(Duration::from_millis(millis)),
                node: node.to_owned(),
                event,
            });
            self
        }

        fn registered(&mut self, millis: u64) -> &mut Self {
            self.line(millis, "s1.1", Event::Registered { id: ID.to_owned() })
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
            let round = u32::try_from(since).unwrap();
            let fault = Event::Fault {
                round,
                kind: Kind::Cut,
                target: target.to_owned(),
                leads_raft: false,
            };
            self.line(since, "run", fault);
            self.line(until, "run", Event::Healed { round })
        }

        fn broken(&mut self) -> Vec<Promise> {
            self.line(100_000, "run", Event::Ending);
            let lines = crate::history::merged(self.0.clone());
            let found = check(&Timeline::new(&lines), GONE_WITHIN).violations;
            found
                .into_iter()
                .map(|violation| violation.promise)
                .collect()
        }
    }

    #[test]
    fn what_is_seen_soon_and_gone_in_time_breaks_nothing() {
        let mut script = Script::default();
        script.lists(0, &[]).registered(1_000).lists(2_900, &[ID]);
        script.killed(10_000).lists(15_900, &[]);
        assert_eq!(script.broken(), []);
    }

    #[test]
    fn what_is_seen_late_must_have_been_hindered_until_shortly_before() {
        let late = |target: &str, healed| {
            let mut script = Script::default();
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
        let mut script = Script::default();
        script.lists(0, &[]).registered(1_000);
        assert_eq!(script.broken(), [Promise::D1]);
    }

    #[test]
    fn what_was_killed_must_go_unless_it_is_held_or_the_servers_were_away() {
        let gone = |at, held: &[&str], healed: Option<u64>| {
            let mut script = Script::default();
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
            let mut script = Script::default();
            script.lists(0, &[]).registered(1_000).lists(1_100, &[ID]);
            script.line(10_000, "s1.1", Event::Withdrawing { id: ID.to_owned() });
            script.lists(gone, &[]);
            assert_eq!(script.broken(), broken);
        }
    }

    #[test]
    fn what_lives_may_vanish_only_after_a_long_fault_of_its_own_or_of_the_servers() {
        let vanished = |target: &str, lasts: u64| {
            let mut script = Script::default();
            script.lists(0, &[]).registered(1_000).lists(1_100, &[ID]);
            script.fault(target, 10_000, 10_000 + lasts);
            script.lists(10_500, &[]).lists(10_600 + lasts, &[ID]);
            script.broken()
        };
        assert_eq!(vanished("r1", 3_000), [Promise::D3]);
        assert_eq!(vanished("s1", 3_000), []);
        assert_eq!(vanished("agent", 3_000), []);
        assert_eq!(vanished("s1", 600), [Promise::D3]);
    }
}
