//! The report: what was measured, as Markdown with charts beside it.

use std::fmt::{Display, Write as _};
use std::fs;
use std::path::Path;

use crate::Result;
use crate::earlier::{Earlier, Written};
use crate::headings::{BARS, CONDITIONS};
use crate::plot::Chart;

/// What one bench has to say.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) title: &'static str,
    /// Markdown: how it was measured, the figures, and how to read them.
    pub(crate) text: String,
    pub(crate) bars: Vec<Bar>,
    pub(crate) charts: Vec<Chart>,
}

impl Section {
    /// As it stands in the report.
    fn written(&self, measured: &str) -> Written {
        let mut bars = Table::default();
        for bar in &self.bars {
            let met = if bar.met { "yes" } else { "**no**" };
            bars.row([self.title, &bar.what, &bar.limit, &bar.measured, met]);
        }
        let mut text = format!("{measured}\n\n{}", self.text.trim());
        for chart in &self.charts {
            let _ = write!(text, "\n\n![{}]({})", chart.title, chart.file());
        }
        Written {
            title: self.title.to_owned(),
            bars: bars.to_string(),
            text,
        }
    }
}

/// A figure that was promised, and what came of it.
#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) what: String,
    pub(crate) limit: String,
    pub(crate) measured: String,
    pub(crate) met: bool,
}

impl Bar {
    /// A bar that is met if `measured` is at most `limit`.
    pub(crate) fn at_most(
        what: impl Into<String>,
        measured: f64,
        limit: f64,
        show: impl Fn(f64) -> String,
    ) -> Self {
        Self {
            what: what.into(),
            limit: format!("≤ {}", show(limit)),
            measured: show(measured),
            met: measured <= limit,
        }
    }

    /// A bar that is met if `measured` is at least `limit`.
    pub(crate) fn at_least(
        what: impl Into<String>,
        measured: f64,
        limit: f64,
        show: impl Fn(f64) -> String,
    ) -> Self {
        Self {
            what: what.into(),
            limit: format!("≥ {}", show(limit)),
            measured: show(measured),
            met: measured >= limit,
        }
    }
}

/// A Markdown table, built row by row.
#[derive(Debug, Default)]
pub(crate) struct Table(String);

impl Table {
    pub(crate) fn new<T: Display>(columns: impl IntoIterator<Item = T>) -> Self {
        let mut table = Self(String::new());
        let before = table.0.len();
        table.row(columns);
        let columns = table.0[before..].matches(" |").count();
        table.row((0..columns).map(|nth| if nth == 0 { "---" } else { "---:" }));
        table
    }

    pub(crate) fn row<T: Display>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.0.push('|');
        for cell in cells {
            // Writing to a String cannot fail.
            let _ = write!(self.0, " {cell} |");
        }
        self.0.push('\n');
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

const BARS_HEAD: &str = "\
| bench | what | bar | measured | met |
| --- | --- | ---: | ---: | ---: |
";

/// Writes `bench.md` and its charts into `folder`. Keeps what an earlier report there says of benches that were not measured now,
/// unless `from_scratch`. `measured` says when and how the sections were measured.
pub(crate) fn write(
    folder: &Path,
    from_scratch: bool,
    conditions: &Table,
    measured: &str,
    sections: &[Section],
) -> Result<()> {
    fs::create_dir_all(folder)?;
    for chart in sections.iter().flat_map(|section| &section.charts) {
        fs::write(folder.join(chart.file()), chart.to_svg())?;
    }
    let report = folder.join("bench.md");
    let earlier = if from_scratch {
        Earlier::default()
    } else {
        Earlier::read(&report)?
    };
    let written = sections.iter().map(|section| section.written(measured));
    let text = markdown(conditions, merged(earlier, written));
    fs::write(&report, text)?;
    eprintln!("wrote {}", report.display());
    Ok(())
}

/// The sections of `earlier`, each replaced by the new one of its title, and the new ones that have none there.
fn merged(earlier: Earlier, new: impl IntoIterator<Item = Written>) -> Vec<Written> {
    let mut sections = earlier.sections;
    for new in new {
        match sections.iter_mut().find(|held| held.title == new.title) {
            Some(held) => *held = new,
            None => sections.push(new),
        }
    }
    sections
}

fn markdown(conditions: &Table, sections: Vec<Written>) -> String {
    let bars: String = sections.iter().map(|section| &*section.bars).collect();
    let mut text =
        format!("{INTRODUCTION}\n## {BARS}\n\n{BARS_HEAD}{bars}\n## {CONDITIONS}\n\n{conditions}");
    for Written {
        title, text: body, ..
    } in sections
    {
        let _ = write!(text, "\n## {title}\n\n{body}\n");
    }
    text
}

const INTRODUCTION: &str = "\
# Benchmarks

Written by `cargo xtask bench --out docs`; do not edit. All contenders of a bench run in one program and one run. Each is
measured once per round, in a newly shuffled order, after one round to warm up. A ratio compares two contenders round by round:
the median of the rounds' ratios, in parentheses the smallest and the largest, and in how many rounds it was below 1. Absolute
figures hold only for this machine and this hour; compare ratios. Benches can be run one by one: each says when it ran, and the
conditions are those of the last run.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_rule_below_its_head() {
        let mut table = Table::new(["a", "b"]);
        table.row([1, 2]);
        assert_eq!(table.to_string(), "| a | b |\n| --- | ---: |\n| 1 | 2 |\n");
    }

    fn section(title: &'static str, measured: f64) -> Section {
        Section {
            title,
            text: format!("Took {measured}."),
            bars: vec![Bar::at_most(title.to_lowercase(), measured, 40.0, |ns| {
                format!("{ns} ns")
            })],
            charts: Vec::new(),
        }
    }

    fn report(earlier: &str, sections: &[Section]) -> String {
        let written = sections.iter().map(|section| section.written("Now."));
        let sections = merged(Earlier::parse(earlier), written);
        markdown(&Table::new(["condition", "value"]), sections)
    }

    #[test]
    fn the_report_names_bars_that_were_missed() {
        let text = report("", &[section("Pick", 50.0)]);
        assert!(
            text.contains("| Pick | pick | ≤ 40 ns | 50 ns | **no** |"),
            "{text}"
        );
        assert!(text.contains("\n## Pick\n\nNow.\n\nTook 50.\n"));
    }

    #[test]
    fn what_is_not_measured_anew_stays_as_it_was() {
        let both = report("", &[section("Pick", 50.0), section("Rpc", 30.0)]);
        assert_eq!(report(&both, &[section("Pick", 50.0)]), both);
        let mended = report(&both, &[section("Pick", 10.0)]);
        let at_once = report("", &[section("Pick", 10.0), section("Rpc", 30.0)]);
        assert_eq!(mended, at_once);
    }
}
