//! Aligned columns that only ever grow. A table without an end repeats its header where they do.

use std::borrow::Cow;
use std::fmt::Write;

/// The most characters of a cell that are shown; JSON has all of them. Other programs write records, too: one of them must not push the
/// columns of all rows out of sight, and formatting panics beyond 65 535.
const WIDEST: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// Makes the columns wide enough for these cells. Returns whether one had to become wider. The last column has no end.
    pub(crate) fn make_room(&mut self, cells: &[String]) -> bool {
        let columns = cells.len().saturating_sub(1);
        self.widths.resize(self.widths.len().max(columns), 0);
        let mut wider = false;
        for (width, cell) in self.widths.iter_mut().zip(cells) {
            let needed = shortened(cell).chars().count();
            wider |= needed > *width;
            *width = (*width).max(needed);
        }
        wider
    }

    /// One line. The last cell is not padded.
    pub(crate) fn row(&self, cells: &[String]) -> String {
        let mut line = String::new();
        for (index, cell) in cells.iter().enumerate() {
            if index > 0 {
                line.push_str("  ");
            }
            let width = self.widths.get(index).copied().unwrap_or(0);
            let cell = shortened(cell);
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:width$}");
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// A cell that is too wide ends with `…`.
fn shortened(cell: &str) -> Cow<'_, str> {
    if cell.chars().nth(WIDEST).is_none() {
        return cell.into();
    }
    cell.chars().take(WIDEST - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn columns_are_aligned_and_lines_do_not_end_in_blanks() {
        let mut table = Table::default();
        let rows = ["ID ADDRESS ZONE", "größe h:1 b", "x h:50051 "].map(cells);
        for row in &rows {
            table.make_room(row);
        }
        let lines = rows.map(|row| table.row(&row));
        assert_eq!(
            lines,
            [
                "ID     ADDRESS  ZONE",
                "größe  h:1      b",
                "x      h:50051"
            ]
        );
    }

    #[test]
    fn a_cell_of_any_width_is_shown_as_far_as_it_is_wide_enough() {
        let mut table = Table::default();
        let row = ["ü".repeat(70_000), "b".to_owned()];
        table.make_room(&row);
        let line = table.row(&row);
        assert_eq!(line, format!("{}…  b", "ü".repeat(WIDEST - 1)));
    }
}
