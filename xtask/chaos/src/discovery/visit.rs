//! What one site's run came to.

use crate::discovery::check::Findings;
use crate::kind::Kind;

/// The run of one site.
pub(super) struct Visit {
    pub(super) label: String,
    pub(super) faults: Vec<Kind>,
    pub(super) findings: Findings,
}
