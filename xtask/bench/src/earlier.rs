//! A report that an earlier run has written: what it says of benches that are not measured again is kept.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::Result;
use crate::headings::{BARS, CONDITIONS};

/// The sections of a report, in their order.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    pub(crate) sections: Vec<Written>,
}

/// One section, as it was written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) title: String,
    /// Its rows of the table of bars.
    pub(crate) bars: String,
    /// What follows its heading.
    pub(crate) text: String,
}

impl Earlier {
    /// Reads `report`; empty if there is none.
    pub(crate) fn read(report: &Path) -> Result<Self> {
        match fs::read_to_string(report) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn parse(report: &str) -> Self {
        let parts = report.split("\n## ").skip(1);
        let parts = parts.filter_map(|part| part.split_once('\n'));
        let mut all_bars = "";
        let mut sections = Vec::new();
        for (title, text) in parts {
            match title {
                BARS => all_bars = text,
                CONDITIONS => {}
                _ => sections.push((title, text)),
            }
        }
        let written = |(title, text): (&str, &str)| Written {
            title: title.to_owned(),
            bars: rows_of(title, all_bars),
            text: text.trim().to_owned(),
        };
        Self {
            sections: sections.into_iter().map(written).collect(),
        }
    }
}

fn rows_of(title: &str, bars: &str) -> String {
    let begins = format!("| {title} |");
    let rows = bars.lines().filter(|row| row.starts_with(&begins));
    rows.flat_map(|row| [row, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_found_with_its_bars_and_its_text() {
        let report = "# Benchmarks\n\nIntro.\n\n## The bars\n\n| bench | what |\n| --- | --- |\n| Pick | a |\n| Rpc | b |\n\
                      | Pick | c |\n\n## Conditions\n\n| x |\n\n## Pick\n\nText.\n\n## Rpc\n\nMore.\n";
        let earlier = Earlier::parse(report);
        let [pick, rpc] = &earlier.sections[..] else {
            panic!("{earlier:?}");
        };
        assert_eq!(pick.bars, "| Pick | a |\n| Pick | c |\n");
        assert_eq!(pick.text, "Text.");
        assert_eq!((rpc.title.as_str(), rpc.text.as_str()), ("Rpc", "More."));
    }

    #[test]
    fn where_nothing_was_written_nothing_is_kept() {
        let none = Path::new("/nonexistent/bench.md");
        assert!(Earlier::read(none).unwrap().sections.is_empty());
    }
}
