//! The report of a run, as Markdown.
//!
//! That a run can notice what breaks D3 is shown by the naive reader, which is bound to break it while a server is away or the reader
//! is cut off. It asks the server each time, so it does not break D1 or D2: that those are noticed is shown by the checker's unit tests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::backend::Backend;
use crate::discovery::check::{Findings, Promise, Violation};
use crate::discovery::visit::Visit;
use crate::history::Reader;
use crate::kind::Kind;
use crate::table::{Table, show};

/// How many violations are written out.
const SHOWN: usize = 30;

/// Everything that there is to say about a run.
pub(super) struct Report<'a> {
    pub(super) backend: Backend,
    pub(super) visits: &'a [Visit],
    pub(super) seed: u64,
    /// `None` for a quick run.
    pub(super) minutes: Option<u32>,
}

/// A number that has to be at least, or exactly, what was asked for.
struct Bar {
    what: &'static str,
    limit: String,
    measured: usize,
    met: bool,
}

impl Report<'_> {
    pub(super) fn is_good(&self) -> bool {
        self.bars().iter().all(|bar| bar.met)
    }

    pub(super) fn markdown(&self) -> String {
        let mut bars = Table::new(["what", "bar", "measured", "met"]);
        for bar in self.bars() {
            let met = if bar.met { "yes" } else { "**no**" };
            bars.row([bar.what, &bar.limit, &bar.measured.to_string(), met]);
        }
        let sites = self.visits.iter().map(|visit| visit.label.as_str());
        let sites = sites.collect::<Vec<_>>().join("; ");
        let lasted = match self.minutes {
            Some(minutes) => format!("{minutes} minutes of faults"),
            None => "A quick run".to_owned(),
        };
        let command = format!(
            "cargo xtask chaos --discovery --backend {}",
            self.backend.name()
        );
        let mut text = format!(
            "# Discovery under faults, over {}\n\nWritten by `{command}`; do not edit. {lasted}, seed {}, on: {sites}. \
             At each site five processes register and two read, while processes, their connections and the servers are \
             broken, one at a time. A reader that polls, and takes an error for an empty answer, runs beside ours and has to be caught.\n\n",
            self.backend.name(),
            self.seed
        );
        let _ = write!(text, "{bars}\n## Measured\n\n{}", self.measured());
        let _ = write!(text, "\n## Faults\n\n{}", self.faults());
        let _ = write!(text, "\n## Promises\n\n{}", self.promises());
        text += &self.listed();
        text
    }

    fn bars(&self) -> Vec<Bar> {
        let faults: usize = self.visits.iter().map(|visit| visit.faults.len()).sum();
        let (asked, each) = match self.minutes {
            Some(minutes) => {
                let minutes = usize::try_from(minutes).unwrap_or(usize::MAX);
                (4 * minutes, minutes / 5)
            }
            None => (1, 0),
        };
        let kinds = Kind::of_backend(self.backend);
        let rarest = kinds.iter().map(|kind| self.count(*kind)).min();
        let rarest = rarest.unwrap_or(0);
        let sights = self.visits.iter().map(|visit| visit.findings.sights).sum();
        let ours = self
            .violations()
            .filter(|one| one.reader == Reader::Ours)
            .count();
        let naive = self
            .violations()
            .filter(|one| one.reader == Reader::Naive && one.promise == Promise::D3)
            .count();
        let exactly = |what, measured| Bar {
            what,
            limit: "0".to_owned(),
            measured,
            met: measured == 0,
        };
        let at_least = |what, least: usize, measured| Bar {
            what,
            limit: format!("≥ {least}"),
            measured,
            met: measured >= least,
        };
        vec![
            exactly("violations by our readers", ours),
            at_least("violations of D3 by the naive reader", 1, naive),
            at_least("faults", asked, faults),
            at_least("faults of the rarest kind", each, rarest),
            at_least("instances that readers of ours had to see", asked, sights),
        ]
    }

    fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.visits
            .iter()
            .flat_map(|visit| &visit.findings.violations)
    }

    fn count(&self, kind: Kind) -> usize {
        let faults = self.visits.iter().flat_map(|visit| &visit.faults);
        faults.filter(|one| **one == kind).count()
    }

    fn measured(&self) -> Table {
        let mut table = Table::new(["from, to", "times", "median", "longest"]);
        let all = |of: fn(&Findings) -> &Vec<Duration>| -> Vec<Duration> {
            let visits = self.visits.iter();
            visits
                .flat_map(|visit| of(&visit.findings))
                .copied()
                .collect()
        };
        let rows = [
            (
                "registered, or the last fault that concerned it ended, to seen",
                all(|found| &found.seen_after),
            ),
            (
                "withdrawal begun to seen",
                all(|found| &found.withdrawn_after),
            ),
            (
                "killed to seen, with no server disturbed",
                all(|found| &found.gone_after),
            ),
        ];
        for (what, mut all) in rows {
            all.sort();
            let median = all
                .get(all.len() / 2)
                .copied()
                .map_or_else(String::new, show);
            let longest = all.last().copied().map_or_else(String::new, show);
            table.row([what.to_owned(), all.len().to_string(), median, longest]);
        }
        table
    }

    fn faults(&self) -> Table {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for kind in Kind::of_backend(self.backend) {
            *counts.entry(label(kind)).or_default() += self.count(kind);
        }
        let mut table = Table::new(["fault", "times"]);
        for (what, count) in counts {
            table.row([what.to_owned(), count.to_string()]);
        }
        table
    }

    fn promises(&self) -> Table {
        let mut table = Table::new(["promise", "", "broken by ours", "by the naive reader"]);
        for promise in Promise::ALL {
            let by = |reader| {
                let broken = self.violations();
                broken
                    .filter(|one| one.promise == promise && one.reader == reader)
                    .count()
                    .to_string()
            };
            table.row([
                promise.to_string(),
                promise.says().to_owned(),
                by(Reader::Ours),
                by(Reader::Naive),
            ]);
        }
        table
    }

    fn listed(&self) -> String {
        let ours: Vec<_> = self
            .violations()
            .filter(|one| one.reader == Reader::Ours)
            .take(SHOWN)
            .map(|one| format!("- {}: {} {}\n", one.at, one.promise, one.what))
            .collect();
        if ours.is_empty() {
            return String::new();
        }
        format!("\n## Broken by our readers\n\n{}", ours.concat())
    }
}

/// What a kind of fault is where no process is a candidate.
fn label(kind: Kind) -> &'static str {
    match kind {
        Kind::KillCandidate => "process killed and replaced",
        Kind::FreezeBelowTtl => "process frozen, below the TTL",
        Kind::FreezeAroundTtl => "process frozen, around the TTL",
        Kind::FreezeAboveTtl => "process frozen, far above the TTL",
        Kind::Cut => "process cut off, connections reset",
        Kind::BlackHole => "process cut off, everything swallowed",
        Kind::OneWay => "process cut off one way",
        Kind::Errors => "process answered with errors",
        Kind::RevokeLease | Kind::DeleteEntry => "record removed by an operator",
        Kind::Compact => "compaction while a reader is cut off",
        kind => kind.name(),
    }
}
