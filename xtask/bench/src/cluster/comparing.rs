//! Ours beside the client in Go, sample by sample.

use std::time::Duration;

use crate::part::{group_of, table_of};
use crate::plot::Group;
use crate::report::{Bar, Table};
use crate::stats::Ratio;

/// In the order of [`Module::both`](super::module::Module::both).
pub(super) const NAMES: [&str; 2] = ["sd-cluster", "isp-kit in Go"];

/// What came of one thing that both did.
pub(super) struct Compared {
    pub(super) table: Table,
    pub(super) ratio: String,
    /// That ours takes no longer.
    pub(super) bar: Bar,
    pub(super) group: Group,
}

pub(super) fn compare(what: &str, figures: &[Vec<Duration>]) -> Compared {
    let rows = || NAMES.into_iter().zip(figures.iter().map(Vec::as_slice));
    let ratio = Ratio::of(&figures[0], &figures[1], Duration::as_secs_f64);
    let [ours, theirs] = NAMES;
    Compared {
        table: table_of(rows()),
        ratio: format!(
            "{ours} ÷ {theirs}, paired: {:.2} (quartiles {:.2}–{:.2}), below 1 in {} of {}.",
            ratio.median(),
            ratio.spread.quarter,
            ratio.spread.three_quarters,
            ratio.less,
            ratio.rounds
        ),
        bar: Bar::at_most(
            format!("{what}, {ours} ÷ {theirs}, median of paired ratios"),
            ratio.median(),
            1.0,
            |ratio| format!("{ratio:.2}×"),
        ),
        group: group_of(what, rows()),
    }
}
