//! Sections of several parts, each of which compares contenders.

use std::time::Duration;

use crate::plot::{Chart, Group, PlotBar, Scale};
use crate::report::{Bar, Section, Table};
use crate::stats::{Latency, Ratio, Spread, as_millis};

/// One part of a section.
pub(crate) struct Part {
    pub(crate) text: String,
    pub(crate) bars: Vec<Bar>,
    /// What the section's chart shows of it.
    pub(crate) groups: Vec<Group>,
}

/// A section with one chart, whose file has the name `chart`.
pub(crate) fn section(
    title: &'static str,
    introduction: &str,
    (chart, chart_title): (&'static str, String),
    parts: impl IntoIterator<Item = Part>,
) -> Section {
    let mut text = introduction.to_owned();
    let (mut bars, mut groups) = (Vec::new(), Vec::new());
    for part in parts {
        text.push_str("\n\n");
        text.push_str(part.text.trim());
        bars.extend(part.bars);
        groups.extend(part.groups);
    }
    text.push('\n');
    Section {
        title,
        text,
        bars,
        charts: vec![Chart {
            name: chart,
            title: chart_title,
            scale: Scale::Linear,
            groups,
        }],
    }
}

/// One row for each contender.
pub(crate) fn table_of<'a>(rows: impl IntoIterator<Item = (&'a str, &'a [Duration])>) -> Table {
    let mut table = Table::new(["contender", "p50", "quartiles", "p99", "longest"]);
    for (name, times) in rows {
        let latency = Latency::of(times.iter().copied());
        let spread = spread(times);
        table.row([
            name.to_owned(),
            format!("{:.2} ms", latency.p50),
            format!("{:.2}–{:.2} ms", spread.quarter, spread.three_quarters),
            format!("{:.2} ms", latency.p99),
            format!("{:.2} ms", latency.longest),
        ]);
    }
    table
}

/// One bar for each contender, of which the first is ours.
pub(crate) fn group_of<'a>(
    label: &str,
    rows: impl IntoIterator<Item = (&'a str, &'a [Duration])>,
) -> Group {
    let bars = rows.into_iter().enumerate();
    let bars = bars.map(|(nth, (label, times))| PlotBar {
        label: label.to_owned(),
        ours: nth == 0,
        spread: spread(times),
    });
    Group {
        label: label.to_owned(),
        bars: bars.collect(),
    }
}

/// How much longer ours may take from register to seen than a client that has no more to do.
pub(crate) const BESIDE_RAW: f64 = 1.1;

/// From register to seen: ours first, then what it is compared with, by a name for the bar, whose times ours may be at most `limit` times.
pub(crate) fn register_to_seen(
    method: &str,
    names: [&str; 2],
    other: &str,
    limit: f64,
    figures: &[Vec<Duration>],
) -> Part {
    let rows = || names.into_iter().zip(figures.iter().map(Vec::as_slice));
    let ratio = Ratio::of(&figures[0], &figures[1], Duration::as_secs_f64);
    let medians = spread(&figures[0]).median / spread(&figures[1]).median;
    let text = format!(
        "{method}\n{} samples of each, from the call to the moment at which the reader has the instance:\n\n{}\nRatio of \
         the medians: {medians:.2}. Median of the paired ratios: {:.2} (quartiles {:.2}–{:.2}), below 1 in {} of {}.\n",
        figures[0].len(),
        table_of(rows()),
        ratio.median(),
        ratio.spread.quarter,
        ratio.spread.three_quarters,
        ratio.less,
        ratio.rounds
    );
    Part {
        text,
        bars: vec![Bar::at_most(
            format!("register → seen by a watcher, beside {other}, ratio of medians"),
            medians,
            limit,
            |ratio| format!("{ratio:.2}×"),
        )],
        groups: vec![group_of("register → seen", rows())],
    }
}

/// In milliseconds.
pub(crate) fn spread(times: &[Duration]) -> Spread {
    Spread::of(times.iter().copied().map(as_millis))
}
