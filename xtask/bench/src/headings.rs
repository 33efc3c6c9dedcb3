//! Headings of the report that belong to no bench.

/// The heading of the table of all bars.
pub(crate) const BARS: &str = "The bars";
/// The heading of what the figures depend on.
pub(crate) const CONDITIONS: &str = "Conditions";
