//! The events and the state of a candidate.

use sd_core::clock::Moment;
use sd_core::port::CandidateId;
use sd_core::{Error, FencingToken, Missed};

use crate::end_reason::EndReason;

/// A change in a candidate's campaign. Each `Elected` is followed by exactly one `Ended` with the same token. A slow listener may miss
/// either and then gets `Missed`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ElectionEvent {
    /// In the queue. While there is an error, the candidate may not be in the queue yet.
    Waiting {
        /// How many candidates are ahead, if the server tells.
        ahead: Option<usize>,
        /// The error after which the candidate retries, if any.
        error: Option<Error>,
    },
    /// First in the queue. Waits for a confirmation, and for the takeover delay if there is one.
    Taking,
    /// Leads from now on.
    Elected {
        /// The participation.
        id: CandidateId,
        /// The term.
        token: FencingToken,
        /// When belief ends unless the term is confirmed again.
        deadline: Moment,
        /// Since when, by the candidate's clock.
        at: Moment,
    },
    /// Leads, but the last renewal failed.
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
        /// When belief ended, by the candidate's clock. It may be told later, but belief never outlasts the term's deadline.
        at: Moment,
    },
    /// The listener was too slow and missed events.
    Missed {
        /// How many events it missed.
        count: u64,
    },
    /// Left the queue without having led. Unless the reason is final, the candidate joins again.
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

impl From<Missed> for ElectionEvent {
    fn from(missed: Missed) -> Self {
        Self::Missed {
            count: missed.count,
        }
    }
}

/// What a candidate is doing, for a dump or a status page.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CandidateState {
    /// The phase of its campaign.
    pub phase: CandidatePhase,
    /// Since when.
    pub since: Moment,
    /// The error after which it retries, or which puts its term at risk.
    pub error: Option<Error>,
}

/// The phase of a candidate's campaign.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CandidatePhase {
    /// Does not campaign.
    Idle,
    /// Tries to enter the queue.
    Joining,
    /// In the queue.
    Waiting {
        /// How many candidates are ahead, if the server tells.
        ahead: Option<usize>,
    },
    /// First in the queue, not leading yet.
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
