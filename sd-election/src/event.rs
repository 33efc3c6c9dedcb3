//! What a candidate tells whoever listens.

use sd_core::{CandidateId, Error, FencingToken, Moment};

use crate::end_reason::EndReason;

/// A step of a candidate's way. Each `Elected` is followed by exactly one `Ended` with its token, though a slow listener may miss
/// either, and is then told that it did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ElectionEvent {
    /// In the queue, or not even that while there is an error.
    Waiting {
        /// How many are before it, where the server says so.
        ahead: Option<usize>,
        /// Why it does not get on.
        error: Option<Error>,
    },
    /// First in the queue; waits for a confirmation, and for the takeover delay where there is one.
    Taking,
    /// Leads from now on.
    Elected {
        /// The participation.
        id: CandidateId,
        /// The term.
        token: FencingToken,
        /// When belief ends unless the term is confirmed again.
        deadline: Moment,
    },
    /// Leads, but could not be confirmed.
    AtRisk {
        /// The term.
        token: FencingToken,
        /// Why.
        error: Error,
    },
    /// Was at risk and is confirmed again.
    Recovered {
        /// The term.
        token: FencingToken,
    },
    /// Leads no longer.
    Ended {
        /// The term.
        token: FencingToken,
        /// Why.
        reason: EndReason,
    },
    /// The listener was too slow.
    Missed {
        /// For so many events.
        count: u64,
    },
    /// Is not in the queue any more, without having led. Unless the reason is final, it joins again.
    Lost {
        /// Why.
        reason: EndReason,
    },
}

impl ElectionEvent {
    /// A stable name for metrics, logs and JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Taking => "taking",
            Self::Elected { .. } => "elected",
            Self::AtRisk { .. } => "at_risk",
            Self::Recovered { .. } => "recovered",
            Self::Ended { .. } => "ended",
            Self::Lost { .. } => "lost",
            Self::Missed { .. } => "missed",
        }
    }
}

/// Where a candidate stands, for a dump or a status page.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CandidateState {
    /// Where it stands.
    pub phase: CandidatePhase,
    /// Since when.
    pub since: Moment,
    /// What keeps it from getting on, or puts its term at risk.
    pub error: Option<Error>,
}

/// Where a candidate stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CandidatePhase {
    /// Does not campaign.
    Idle,
    /// Tries to enter the queue.
    Joining,
    /// In the queue.
    Waiting {
        /// How many are before it, where the server says so.
        ahead: Option<usize>,
    },
    /// First in the queue; not yet leading.
    Taking,
    /// Leads.
    Leading {
        /// The term.
        token: FencingToken,
    },
    /// Leads no longer, and is leaving.
    Leaving,
}

impl CandidatePhase {
    /// A stable name for metrics, logs and JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Joining => "joining",
            Self::Waiting { .. } => "waiting",
            Self::Taking => "taking",
            Self::Leading { .. } => "leading",
            Self::Leaving => "leaving",
        }
    }
}
