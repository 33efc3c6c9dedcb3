//! Why a term ended.

use std::fmt;

use sd_core::{Error, ErrorKind};

/// Why a term ended, or a participation that never led. Reported once for each term.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EndReason {
    /// Its leader resigned.
    Resigned,
    /// No confirmation came before the deadline; the error says why.
    LeaseExpired(Option<Error>),
    /// The entry was deleted, or another candidate took it over.
    EntryGone(Error),
    /// The server ended the lease or session under the entry.
    SessionLost(Error),
    /// The leadership, or the campaign for it, was dropped, or the registry was closed.
    Cancelled,
    /// A renewal failed, and [`StepDown::OnFirstError`](crate::StepDown::OnFirstError) was asked for.
    SteppedDown(Error),
    /// A retry cannot succeed.
    Fatal(Error),
}

impl EndReason {
    /// A stable name for metrics, logs and JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Resigned => "resigned",
            Self::LeaseExpired(_) => "lease_expired",
            Self::EntryGone(_) => "entry_gone",
            Self::SessionLost(_) => "session_lost",
            Self::Cancelled => "cancelled",
            Self::SteppedDown(_) => "stepped_down",
            Self::Fatal(_) => "fatal",
        }
    }

    /// The error behind it, where there is one.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Resigned | Self::Cancelled => None,
            Self::LeaseExpired(error) => error.as_ref(),
            Self::EntryGone(error)
            | Self::SessionLost(error)
            | Self::SteppedDown(error)
            | Self::Fatal(error) => Some(error),
        }
    }

    /// What the end of an entry means that the server told with `error`.
    pub(crate) fn of_lost_entry(error: Error) -> Self {
        match error.kind() {
            ErrorKind::LeaseLost => Self::SessionLost(error),
            _ => Self::EntryGone(error),
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resigned => "resigned",
            Self::LeaseExpired(_) => "not confirmed before its deadline",
            Self::EntryGone(_) => "its entry was deleted or taken over",
            Self::SessionLost(_) => "the server ended its lease",
            Self::Cancelled => "dropped",
            Self::SteppedDown(_) => "stepped down after an error",
            Self::Fatal(_) => "a retry cannot succeed",
        })?;
        match self.error() {
            Some(error) => write!(f, ": {}", error.report()),
            None => Ok(()),
        }
    }
}
