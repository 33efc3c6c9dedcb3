//! The report: what was measured, as Markdown with charts beside it.

use std::fmt::{Display, Write as _};
use std::fs;
use std::path::Path;

use crate::Result;
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
#[derive(Debug)]
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

/// Writes `bench.md` and its charts into `folder`.
pub(crate) fn write(folder: &Path, conditions: &Table, sections: &[Section]) -> Result<()> {
    fs::create_dir_all(folder)?;
    for chart in sections.iter().flat_map(|section| &section.charts) {
        fs::write(folder.join(chart.file()), chart.to_svg())?;
    }
    let report = folder.join("bench.md");
    fs::write(&report, markdown(conditions, sections))?;
    eprintln!("wrote {}", report.display());
    Ok(())
}

fn markdown(conditions: &Table, sections: &[Section]) -> String {
    let mut bars = Table::new(["what", "bar", "measured", "met"]);
    for bar in sections.iter().flat_map(|section| &section.bars) {
        let met = if bar.met { "yes" } else { "**no**" };
        bars.row([&bar.what, &bar.limit, &bar.measured, met]);
    }
    let mut text = format!("{INTRODUCTION}\n## The bars\n\n{bars}\n## Conditions\n\n{conditions}");
    for section in sections {
        let _ = write!(text, "\n## {}\n\n{}", section.title, section.text.trim());
        for chart in &section.charts {
            let _ = write!(text, "\n\n![{}]({})", chart.title, chart.file());
        }
        text.push('\n');
    }
    text
}

const INTRODUCTION: &str = "\
# Benchmarks

Written by `cargo xtask bench --out docs`; do not edit. All contenders of a bench run in one program and one run. Each is
measured once in each round, in an order that is shuffled anew, after one round to warm up. A ratio compares two contenders
round by round: the median of the rounds' ratios, in parentheses the smallest and the largest, and in how many rounds it was
below 1. Absolute figures belong to this machine and this hour; compare ratios.
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

    #[test]
    fn the_report_names_bars_that_were_missed() {
        let section = Section {
            title: "Pick",
            text: "Text.".into(),
            bars: vec![Bar::at_most("pick", 50.0, 40.0, |ns| format!("{ns} ns"))],
            charts: Vec::new(),
        };
        let text = markdown(&Table::new(["condition", "value"]), &[section]);
        assert!(
            text.contains("| pick | ≤ 40 ns | 50 ns | **no** |"),
            "{text}"
        );
        assert!(text.contains("## Pick\n\nText."));
    }
}
