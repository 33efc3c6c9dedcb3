//! What a subscription's reader sees: the last good set, and whether it can be trusted.

use crate::clock::Moment;
use crate::error::Error;
use crate::model::snapshot::Snapshot;

/// The last good set of a service, and how far it can be trusted. An error never replaces data.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) snapshot: Snapshot,
    pub(crate) status: Status,
}

/// How far the set of a [`State`] can be trusted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Status {
    /// Nothing has been read yet: the set is unknown, not empty.
    Initializing {
        /// When the subscription began.
        since: Moment,
        /// Why the last attempt failed.
        error: Option<Error>,
    },
    /// The source has confirmed the set and reports changes.
    Live,
    /// The source has trouble. The set is the last good one.
    Stale {
        /// When the trouble began.
        since: Moment,
        /// The newest reason.
        error: Error,
    },
}

impl State {
    /// The last good set; empty while [`Status::Initializing`].
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// How far the set can be trusted.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Whether a set has been read at all.
    pub fn is_known(&self) -> bool {
        !matches!(self.status, Status::Initializing { .. })
    }
}

impl Status {
    /// `initializing`, `live` or `stale`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Initializing { .. } => "initializing",
            Self::Live => "live",
            Self::Stale { .. } => "stale",
        }
    }

    /// Since when the set cannot be trusted. `None` while it can.
    pub fn since(&self) -> Option<Moment> {
        match self {
            Self::Initializing { since, .. } | Self::Stale { since, .. } => Some(*since),
            Self::Live => None,
        }
    }

    /// Why the set cannot be trusted.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Initializing { error, .. } => error.as_ref(),
            Self::Stale { error, .. } => Some(error),
            Self::Live => None,
        }
    }
}
