//! What the settings of a term must satisfy.

use std::time::Duration;

use sd_core::{Error, Result};

use crate::campaign::term_rules::TermRules;
use crate::config::TermConfig;

impl TermConfig {
    /// Checks the settings for a time-to-live.
    pub(crate) fn check(&self, ttl: Duration) -> Result<()> {
        const OP: &str = "candidate";
        if !(0.0..1.0).contains(&self.clock_error) {
            return Err(Error::invalid_input(
                OP,
                format!(
                    "the clock error is {}: set it to a share from 0 to below 1",
                    self.clock_error
                ),
            ));
        }
        if let Some(margin) = self.stop_margin.filter(|margin| *margin > ttl / 4) {
            return Err(Error::invalid_input(
                OP,
                format!(
                    "a stop margin of {margin:?} is more than a quarter of the ttl of {ttl:?}: set a shorter margin or ask for a longer ttl"
                ),
            ));
        }
        let rules = TermRules {
            ttl,
            config: self.clone(),
            promise: None,
            was_admitted: false,
        };
        if !rules.is_long_enough(ttl) {
            return Err(Error::invalid_input(
                OP,
                format!(
                    "a clock error of {} and a stop margin of {:?} leave no room to renew within a ttl of {ttl:?}: \
                     make them smaller or ask for a longer ttl",
                    self.clock_error,
                    rules.stop_margin()
                ),
            ));
        }
        if self.progress_within.is_some_and(|within| within.is_zero()) {
            return Err(Error::invalid_input(
                OP,
                "progress_within is zero: set the longest time between two calls of Term::alive",
            ));
        }
        Ok(())
    }
}
