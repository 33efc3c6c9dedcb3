//! What was found to be broken, and when.

use std::fmt;

use sd_core::clock::Moment;

/// An invariant that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    invariant: &'static str,
    at: Moment,
    text: String,
}

impl Violation {
    pub(in crate::simulation) fn new(invariant: &'static str, at: Moment, text: String) -> Self {
        Self {
            invariant,
            at,
            text,
        }
    }

    /// Which one, for instance `"I1"`.
    pub fn invariant(&self) -> &'static str {
        self.invariant
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.since_start().as_secs_f64();
        write!(f, "{} at {at:.6}: {}", self.invariant, self.text)
    }
}

/// What was found to be broken.
#[derive(Debug, Default)]
pub(super) struct Found(Vec<Violation>);

impl Found {
    pub(super) fn add(&mut self, invariant: &'static str, at: Moment, text: impl Into<String>) {
        self.0.push(Violation::new(invariant, at, text.into()));
    }

    /// In the order in which they happened.
    pub(super) fn into_violations(self) -> Vec<Violation> {
        let mut violations = self.0;
        violations.sort_by_key(|violation| violation.at);
        violations
    }
}
