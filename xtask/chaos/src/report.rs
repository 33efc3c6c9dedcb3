//! The report of a run, as Markdown.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, SystemTime};

use crate::backend::Backend;
use crate::check::{Gap, Handover, Invariant, Violation, Way};
use crate::history::Election;
use crate::story::Span;
use crate::table::{Table, show};
use crate::verdict::{Bar, Class, Verdict, Visit};

/// How many violations are written out.
const SHOWN: usize = 30;

/// Everything that there is to say about a run.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) verdict: &'a Verdict,
    pub(crate) seed: u64,
}

impl Report<'_> {
    pub(crate) fn markdown(&self) -> String {
        let mut bars = Table::new(["what", "bar", "measured", "met"]);
        for Bar {
            what,
            limit,
            measured,
            met,
        } in self.verdict.bars()
        {
            bars.row([
                what,
                limit,
                measured,
                if met { "yes" } else { "**no**" }.to_owned(),
            ]);
        }
        let mut text = format!(
            "{}\n{bars}\n## Conditions\n\n{}",
            introduction(self.verdict.backend),
            self.conditions()
        );
        let _ = write!(text, "\n## Measured\n\n{MEASURED}\n{}", self.measured());
        let _ = write!(text, "\n## Faults\n\n{FAULTS}\n{}", self.faults_table());
        let _ = write!(
            text,
            "\n## Invariants\n\n{INVARIANTS}\n{}",
            self.invariants()
        );
        text += &self.warnings();
        text += &self.listed();
        text
    }

    fn conditions(&self) -> Table {
        let mut table = Table::new(["condition", "value"]);
        let windows = self
            .verdict
            .visits
            .iter()
            .filter_map(|visit| visit.story.window());
        let lasted = windows.map(Span::length).max().unwrap_or_default();
        let lasted = format!("{} s of faults", lasted.as_secs());
        let profile = if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        };
        for (condition, value) in [
            ("run", lasted),
            ("seed", self.seed.to_string()),
            (
                "when",
                humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            ),
            (
                "processors",
                std::thread::available_parallelism()
                    .map_or(1, usize::from)
                    .to_string(),
            ),
            ("load average at the end", load()),
            ("profile", profile.to_owned()),
            ("time-to-live", show(self.verdict.backend.ttl())),
            (
                "candidates",
                "3 processes at each site, each in every election".to_owned(),
            ),
        ] {
            table.row([condition, &value]);
        }
        table
    }

    fn measured(&self) -> Table {
        let heads = self.verdict.visits.iter().map(|visit| visit.label.clone());
        let mut table = Table::new([String::new()].into_iter().chain(heads));
        let mut row = |what: &str, cell: &dyn Fn(&Visit) -> String| {
            let cells = self.verdict.visits.iter().map(cell);
            table.row([what.to_owned()].into_iter().chain(cells));
        };
        let optional = |span: Option<Duration>| span.map_or("–".to_owned(), show);
        row("terms", &|visit| visit.terms().to_string());
        row("smallest gap between two beliefs", &|visit| {
            optional(visit.findings.smallest_gap)
        });
        row(
            "… where the first leader had not ended its term itself",
            &|visit| optional(visit.findings.smallest_gap_lost),
        );
        for election in Election::OURS {
            row(&format!("longest without a leader, {election}"), &|visit| {
                optional(longest(
                    &visit.findings.leaderless,
                    election,
                    |_| true,
                    |gap| gap.span.length(),
                ))
            });
            row(
                &format!("… of it with servers and a machine that worked, {election}"),
                &|visit| {
                    optional(longest(
                        &visit.findings.leaderless,
                        election,
                        |_| true,
                        |gap| gap.with_servers,
                    ))
                },
            );
        }
        for (way, what) in [(Way::Killed, "kill -9"), (Way::Resigned, "resign")] {
            for election in Election::OURS {
                row(
                    &format!("{what} → next leader, {election}: median, longest, times"),
                    &|visit| handovers(&visit.findings.handovers, way, election),
                );
            }
        }
        row("the machine stood still: times, longest", &|visit| {
            let still = visit.story.still.iter();
            let longest = still.copied().map(Span::length).max();
            format!("{}, {}", visit.story.still.len(), optional(longest))
        });
        row("writes taken by the register", &|visit| {
            visit.findings.writes.accepted.to_string()
        });
        row("writes refused for their token", &|visit| {
            visit.findings.writes.refused.to_string()
        });
        table
    }

    fn faults_table(&self) -> Table {
        let sites = self.verdict.visits.iter().map(|visit| visit.label.clone());
        let heads = ["fault".to_owned()].into_iter().chain(sites);
        let lasts = Election::OURS.map(|election| format!("longest without a leader, {election}"));
        let mut table = Table::new(heads.chain(["all".to_owned()]).chain(lasts));
        for kind in self.verdict.kinds() {
            let counts = self
                .verdict
                .visits
                .iter()
                .map(|visit| visit.faults(kind).to_string());
            let longest_of = |election| {
                let of_visit = |visit: &Visit| {
                    let is_of = |gap: &Gap| {
                        let round = visit.story.round_at(gap.span.since);
                        round.is_some_and(|round| round.kind == kind)
                    };
                    longest(&visit.findings.leaderless, election, is_of, |gap| {
                        gap.span.length()
                    })
                };
                let all = self.verdict.visits.iter().filter_map(of_visit).max();
                all.map_or("–".to_owned(), show)
            };
            let row = [kind.to_string()].into_iter().chain(counts);
            let row = row.chain([self.verdict.faults(kind).to_string()]);
            table.row(row.chain(Election::OURS.map(longest_of)));
        }
        table
    }

    fn invariants(&self) -> Table {
        let best_effort = self.verdict.visits.iter().any(Visit::is_best_effort);
        let not_promised = best_effort.then_some("not promised");
        let heads = ["", "invariant", "violations", "apart", "naive"].into_iter();
        let mut table = Table::new(heads.chain(not_promised));
        for invariant in Invariant::ALL {
            let count = |class| {
                self.verdict
                    .count(class, |violation| violation.invariant == invariant)
            };
            let not_promised = best_effort.then(|| count(Class::NotPromised).to_string());
            let row = [
                invariant.to_string(),
                invariant.says().to_owned(),
                count(Class::Ours).to_string(),
                count(Class::Frozen).to_string(),
                count(Class::Naive).to_string(),
            ];
            table.row(row.into_iter().chain(not_promised));
        }
        table
    }

    fn warnings(&self) -> String {
        let mut text = String::new();
        for visit in &self.verdict.visits {
            for note in visit.safety.warnings() {
                let _ = writeln!(text, "- {}: `{}`. {}", visit.label, note.code, note.text);
            }
        }
        if text.is_empty() {
            return text;
        }
        format!("\n`Safety` warned:\n\n{text}")
    }

    /// The violations that must not be, with the rounds that they belong to.
    fn listed(&self) -> String {
        let mut text = String::new();
        let wrong = self
            .verdict
            .violations()
            .filter(|(.., class)| *class != Class::Naive);
        for (visit, violation, class) in wrong.take(SHOWN) {
            let round = visit.story.round_at(violation.at);
            let round = round.map_or("before the first round".to_owned(), |round| {
                format!("round {}, {}, {}", round.number, round.kind, round.target)
            });
            let Violation {
                invariant,
                election,
                at,
                text: what,
                way: _,
            } = violation;
            let apart = match class {
                Class::Frozen => " (apart)",
                Class::NotPromised => " (not promised)",
                Class::Ours | Class::Naive => "",
            };
            let _ = writeln!(
                text,
                "- {invariant}{apart}, {}, {election}, at {at}, {round}: {what}",
                visit.label
            );
        }
        if text.is_empty() {
            return text;
        }
        format!("\n## Violations\n\n{text}")
    }
}

fn longest(
    gaps: &[Gap],
    election: Election,
    is: impl Fn(&Gap) -> bool,
    length: impl Fn(&Gap) -> Duration,
) -> Option<Duration> {
    let of = gaps
        .iter()
        .filter(|gap| gap.election == election && is(gap));
    of.map(length).max()
}

fn handovers(handovers: &[Handover], way: Way, election: Election) -> String {
    let of = handovers
        .iter()
        .filter(|one| one.way == way && one.election == election);
    let mut times: Vec<Duration> = of.map(|one| one.took).collect();
    times.sort_unstable();
    let (Some(median), Some(longest)) = (times.get(times.len() / 2), times.last()) else {
        return "–".to_owned();
    };
    format!("{}, {}, {}", show(*median), show(*longest), times.len())
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn introduction(backend: Backend) -> String {
    let name = backend.name();
    format!(
        "# Chaos over {name}\n\nWritten by `cargo xtask chaos --backend {name} --out docs`; do not edit.\n\n{INTRODUCTION}"
    )
}

const INTRODUCTION: &str = "\
Candidates, each in its own process, stand in three elections over real servers while one fault after another is injected: into the
processes, their connections or the servers, or by an operator. Each process records what it sees and, a thousand times a second,
whether it believes that it leads. One clock of the machine orders all records, and the merged history is checked. A naive candidate,
which does what most programs do, runs beside ours under the same faults: the run counts only if the checks catch it.
";

const MEASURED: &str = "\
A belief lasts from the first time that `is_leader()` said yes to the last, asked every millisecond. The candidates of *delayed* wait
one time-to-live before they believe in a term whose predecessor did not resign. Operators hit only them and the naive ones, and those
of *plain* where the server itself makes the next leader wait for longer than a term is believed in.
The machine stood still when a thread that slept for 20 ms was woken more than 200 ms late; I5 and I10 do not count such times.
Each fault is verified to take effect, or the run is aborted: a frozen process is stopped by the signal from the beginning of the fault
to its end, a test connection over each broken link is reset or gets no answer, and a server confirms what an operator removes.
";

const FAULTS: &str = "\
A time without a leader belongs to the last fault injected before it began, and includes the fault itself. An operator's fault counts
only if it removed one of our candidates.
";

const INVARIANTS: &str = "\
*Apart* counts violations of I1, and of I4 that follow from them, while the server that leads its cluster was frozen or within 9 s
after, where `Safety` warns of that. *Not promised* counts what best-effort elections may break while a server is replaced or within
15 s after: what only strict ones promise, and of I10 the resignations, which may be lost with the server that confirmed them. I5
judges each stretch between two server faults by itself. I5, I8, I9 and I10 are promises, and the naive candidate makes none. I4 does
not count writes of a process that was frozen in its term: only a fence keeps those out.
";
