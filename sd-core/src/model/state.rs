//! What a subscription's reader sees: the last good set, and whether it can be trusted.

use std::sync::Arc;

use crate::clock::Moment;
use crate::error::Error;
use crate::model::instance::Instance;
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

    /// The instances of the last good set, sorted by id. None while [`Status::Initializing`].
    pub fn instances(&self) -> &[Arc<Instance>] {
        self.snapshot.instances()
    }

    /// How far the set can be trusted.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Whether a set has been read at all.
    pub fn is_known(&self) -> bool {
        self.status.is_known()
    }

    /// Whether an instance is there that wants calls.
    pub fn is_usable(&self) -> bool {
        self.instances().iter().any(|instance| instance.is_ready())
    }
}

impl Status {
    /// Whether anything has been read at all.
    pub(crate) fn is_known(&self) -> bool {
        !matches!(self, Self::Initializing { .. })
    }

    /// The source has trouble, now.
    pub(crate) fn blame(&mut self, now: Moment, error: &Error) {
        let error = error.clone();
        *self = match *self {
            Self::Initializing { since, .. } => Self::Initializing {
                since,
                error: Some(error),
            },
            Self::Live => Self::Stale { since: now, error },
            Self::Stale { since, .. } => Self::Stale { since, error },
        };
    }

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
