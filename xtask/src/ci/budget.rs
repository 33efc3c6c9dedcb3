//! How long everything may take.

use std::fmt::{self, Display};
use std::time::Duration;

/// What all steps took, beside what they may take.
pub(crate) struct Budget(pub(crate) Duration);

impl Budget {
    /// On two cores, with the programs of the servers at hand. `CONTRIBUTING.md` says what a change may take of it.
    const CACHED: Duration = Duration::from_mins(45);
    /// On a machine that has to build them, too.
    const COLD: Duration = Duration::from_mins(75);
}

impl Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.0 {
            took if took > Self::COLD => "OVER",
            took if took > Self::CACHED => "cold?",
            _ => "within",
        };
        let minutes = |duration: Duration| duration.as_secs() / 60;
        let (seconds, cached, cold) =
            (self.0.as_secs(), minutes(Self::CACHED), minutes(Self::COLD));
        write!(
            f,
            "{word:<8} {seconds:>4} s  budget: {cached} min on two cores with the servers' programs cached, {cold} without"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_says_whether_it_was_kept() {
        let shown = |minutes| Budget(Duration::from_mins(minutes)).to_string();
        assert_eq!(
            shown(20),
            "within   1200 s  budget: 45 min on two cores with the servers' programs cached, 75 without"
        );
        assert!(shown(46).starts_with("cold?"));
        assert!(shown(76).starts_with("OVER"));
    }
}
