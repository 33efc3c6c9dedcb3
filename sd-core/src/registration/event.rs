//! What happens to a registration, as its owner sees it.

use std::time::Duration;

use serde::Serialize;

use crate::error::Error;
use crate::events::Missed;
use crate::model::overriding::Override;
use crate::port::registrar::Liveness;

/// Something that happened to a registration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RegistrationEvent {
    /// The server confirmed the record, for the first time or again after a loss.
    Registered(Liveness),
    /// The server confirmed a change of the record.
    Updated,
    /// A renewal failed. The record may still be there. Renewals go on.
    AtRisk(Error),
    /// A renewal succeeded after [`AtRisk`](Self::AtRisk). The record was there all the time.
    Recovered,
    /// An operator says this of the record, in place of its owner: readers go by it. An owner whose record is
    /// [draining](Override::Draining) should finish and deregister.
    Overridden(Override),
    /// An operator has cleared the override: readers go by what the owner says.
    OverrideCleared,
    /// The record is gone, and an override with it. The keeper registers it again.
    Lost(Error),
    /// An attempt to register failed. The next attempt follows after `delay`.
    Retrying {
        /// Why the attempt failed.
        error: Error,
        /// How long until the next attempt.
        delay: Duration,
    },
    /// The listener was too slow and missed events.
    Missed {
        /// How many events it missed.
        count: u64,
    },
    /// The server confirmed that the record is withdrawn. The last event.
    Withdrawn,
    /// The record is left at the server, and no longer kept. The last event.
    Released,
    /// Registering cannot succeed, or withdrawing could not be confirmed. The last event.
    Failed(Error),
}

impl RegistrationEvent {
    /// A stable name for metrics, logs and JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Registered(_) => "registered",
            Self::Updated => "updated",
            Self::AtRisk(_) => "at_risk",
            Self::Recovered => "recovered",
            Self::Overridden(_) => "overridden",
            Self::OverrideCleared => "override_cleared",
            Self::Lost(_) => "lost",
            Self::Retrying { .. } => "retrying",
            Self::Missed { .. } => "missed",
            Self::Withdrawn => "withdrawn",
            Self::Released => "released",
            Self::Failed(_) => "failed",
        }
    }

    /// Why it happened, if there is a reason.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::AtRisk(error)
            | Self::Lost(error)
            | Self::Retrying { error, .. }
            | Self::Failed(error) => Some(error),
            Self::Registered(_)
            | Self::Updated
            | Self::Recovered
            | Self::Missed { .. }
            | Self::Overridden(_)
            | Self::OverrideCleared
            | Self::Withdrawn
            | Self::Released => None,
        }
    }

    /// Where the registration stands after this event, if that is known.
    pub(crate) fn phase(&self) -> Option<RegistrationPhase> {
        match self {
            Self::Registered(_)
            | Self::Updated
            | Self::Recovered
            | Self::Overridden(_)
            | Self::OverrideCleared => Some(RegistrationPhase::Registered),
            Self::AtRisk(_) => Some(RegistrationPhase::AtRisk),
            Self::Lost(_) | Self::Retrying { .. } => Some(RegistrationPhase::Registering),
            Self::Withdrawn | Self::Released | Self::Failed(_) => Some(RegistrationPhase::Ended),
            Self::Missed { .. } => None,
        }
    }
}

impl From<Missed> for RegistrationEvent {
    fn from(missed: Missed) -> Self {
        Self::Missed {
            count: missed.count,
        }
    }
}

/// Where a registration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RegistrationPhase {
    /// Not at the server, or not known to be. Attempts go on.
    Registering,
    /// The server has confirmed the record.
    Registered,
    /// The server confirmed the record earlier, but renewals now fail.
    AtRisk,
    /// The registration has ended.
    Ended,
}
