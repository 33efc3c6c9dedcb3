//! What one round of a run is to do.

use crate::history::Election;
use crate::kind::Kind;

/// What a round is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) kind: Kind,
    /// If it is done to a candidate: to the leader of this election, or to any candidate if there is none. By default it is drawn.
    pub(crate) leads: Option<Election>,
}

impl Step {
    /// Whichever candidate it hits.
    pub(crate) const fn of(kind: Kind) -> Self {
        Self { kind, leads: None }
    }

    /// It hits the leader of this election.
    pub(crate) const fn at(kind: Kind, election: Election) -> Self {
        let leads = Some(election);
        Self { kind, leads }
    }
}
