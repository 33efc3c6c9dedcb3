//! Which test programs took longest.

use std::fmt::{self, Display};
use std::time::Duration;

use crate::capture::Captured;

/// How many are named.
const SHOWN: usize = 12;

/// What each test program took.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Time>);

#[derive(Debug)]
struct Time {
    title: String,
    took: Duration,
    processor: Duration,
}

impl Times {
    pub(crate) fn add(&mut self, title: &str, captured: &Captured) {
        self.0.push(Time {
            title: title.to_owned(),
            took: captured.took,
            processor: captured.processor,
        });
    }
}

/// The slowest, the slowest first, and the sums over all.
impl Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut slowest: Vec<&Time> = self.0.iter().collect();
        slowest.sort_by_key(|time| std::cmp::Reverse(time.took));
        writeln!(f, "the slowest test programs, in seconds (processor time):")?;
        for time in slowest.iter().take(SHOWN) {
            let (took, processor) = (time.took.as_secs_f64(), time.processor.as_secs_f64());
            writeln!(f, "{took:>7.1} ({processor:>5.1})  {}", time.title)?;
        }
        let sum = |of: fn(&Time) -> Duration| self.0.iter().map(of).sum::<Duration>().as_secs_f64();
        let (took, processor) = (sum(|time| time.took), sum(|time| time.processor));
        let all = self.0.len();
        write!(
            f,
            "{took:>7.1} ({processor:>5.1})  all {all}, if run one after another"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_come_first_and_the_sum_last() {
        let time = |nth: u64| Time {
            title: format!("p{nth}"),
            took: Duration::from_millis(nth * 1_000),
            processor: Duration::from_millis(nth * 100),
        };
        let shown = Times((1..=20).map(time).collect()).to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), SHOWN + 2);
        assert_eq!(lines[1], "   20.0 (  2.0)  p20");
        assert_eq!(lines[SHOWN], "    9.0 (  0.9)  p9");
        assert!(lines[SHOWN + 1].starts_with("  210.0 ( 21.0)  all 20"));
    }
}
