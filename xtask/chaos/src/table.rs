//! Markdown tables, and times as they are shown in them.

use std::fmt::{self, Display, Write as _};
use std::time::Duration;

/// A Markdown table, built row by row.
pub(crate) struct Table(String);

impl Table {
    pub(crate) fn new<T: Display>(heads: impl IntoIterator<Item = T>) -> Self {
        let mut table = Self(String::new());
        table.row(heads);
        let columns = table.0.matches(" |").count();
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
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Three digits.
pub(crate) fn show(span: Duration) -> String {
    let seconds = span.as_secs_f64();
    match seconds {
        _ if seconds >= 9.995 => format!("{seconds:.1} s"),
        _ if seconds >= 0.9995 => format!("{seconds:.2} s"),
        _ if seconds >= 0.0995 => format!("{:.0} ms", seconds * 1e3),
        _ => format!("{:.1} ms", seconds * 1e3),
    }
}

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
    fn three_digits_are_shown() {
        let shown =
            [0.000_42, 0.0123, 0.123, 1.234, 12.34].map(|s| show(Duration::from_secs_f64(s)));
        assert_eq!(shown, ["0.4 ms", "12.3 ms", "123 ms", "1.23 s", "12.3 s"]);
    }
}
