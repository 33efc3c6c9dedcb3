//! What is checked of an instance, and how often.

mod fields;
mod rules;

use std::fs;
use std::num::NonZeroU32;
use std::time::Duration;

use sd_core::{Error, Result};
use serde::{Deserialize, Serialize};

use self::fields::Fields;
#[cfg(feature = "checks")]
pub(crate) use self::rules::{HttpTarget, endpoint};

/// One check of an instance.
///
/// Its JSON form is one flat object. `kind` says which further fields there may be; an unknown field, and one that another kind has, is
/// an error that names it. Checks of the kinds `ttl` and `pid` are told, and do not ask: they have none of the fields from `interval` on
/// but `initial` of `ttl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct CheckSpec {
    /// What the check is called in reports and beats, 1 to 64 bytes. By default its kind, with a number from the second one on.
    pub name: Option<String>,
    /// What is asked.
    pub kind: CheckKind,
    /// From the end of one attempt to the begin of the next. Default 10 s, at least 100 ms, at most 1 h.
    ///
    /// A check that has not passed yet is repeated sooner: after 100 ms, and then after twice the time before, up to this one.
    pub interval: Duration,
    /// How long one attempt may take. Default 2 s, at least 1 ms, at most 60 s.
    pub timeout: Duration,
    /// After how many good answers in a row a failing check passes. Default 1.
    pub passes_after: NonZeroU32,
    /// After how many bad answers in a row a passing check fails. Default 2.
    pub fails_after: NonZeroU32,
    /// What counts until the answers have decided. Default failing.
    pub initial: CheckState,
}

impl CheckSpec {
    /// The default [interval](Self::interval): 10 s.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
    /// The default [time-out](Self::timeout): 2 s.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
    /// How many checks an instance may have.
    pub const MOST: usize = 16;

    /// A check of this kind, and otherwise as by default.
    pub fn new(kind: CheckKind) -> Self {
        Self {
            name: None,
            kind,
            interval: Self::DEFAULT_INTERVAL,
            timeout: Self::DEFAULT_TIMEOUT,
            passes_after: NonZeroU32::MIN,
            fails_after: NonZeroU32::MIN.saturating_add(1),
            initial: CheckState::Failing,
        }
    }

    /// Checks that every field is within its bounds.
    ///
    /// # Errors
    /// `InvalidInput` that names the check and the field.
    pub fn validate(&self) -> Result<()> {
        rules::check(self).map_err(|why| Error::invalid_input("check", why))
    }

    /// Validates the checks of one instance, and gives each its name: no two are the same.
    ///
    /// # Errors
    /// `InvalidInput` that names the check and the field.
    pub fn names(specs: &[Self]) -> Result<Vec<String>> {
        rules::names(specs).map_err(|why| Error::invalid_input("check", why))
    }

    /// The same check, and if it is one of the kind `pid`, with when that process began. For a specification that is kept for a later run
    /// of the one who checks, when another process may have the id.
    #[must_use]
    pub fn with_start_of_process(mut self) -> Self {
        if let CheckKind::Pid { pid, started } = &mut self.kind
            && started.is_none()
        {
            *started = start_of_process(*pid);
        }
        self
    }
}

/// When a process began, in ticks since the machine did. `None` if there is none, or on another system than Linux.
pub(crate) fn start_of_process(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the other fields is in parentheses, and may contain more of them.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.parse().ok()
}

/// What one check asks. Where no address is given, it is the instance's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// A TCP connection is accepted.
    Tcp {
        /// `host:port`, or `unix:/path`.
        address: Option<String>,
    },
    /// `GET` is answered with a status from 200 to 299. Redirects are not followed.
    Http {
        /// `http://host:port/path`, or a path at the instance's address. Default `/healthz`. TLS is not spoken.
        url: Option<String>,
    },
    /// `grpc.health.v1.Health/Check` is answered with `SERVING`. TLS is not spoken.
    Grpc {
        /// `host:port`, or `unix:/path`.
        address: Option<String>,
        /// The service that is asked for. Default: the server as a whole.
        service: String,
    },
    /// A program ends with status 0. An agent runs programs only if it was configured to.
    Command {
        /// The program and its arguments, 1 to 64 with 4096 bytes in all. No shell reads them.
        command: Vec<String>,
    },
    /// The process says that it is well, at least this often. What it says counts at once.
    Ttl {
        /// From one beat to the latest next one, 100 ms to 24 h.
        ttl: Duration,
    },
    /// The process with this id lives. Another process that has got the same id later does not count. Only on Linux.
    Pid {
        /// The process id.
        pid: u32,
        /// When the process began, as field 22 of `/proc/PID/stat` tells it. A process with the same id that began at another time does
        /// not count. Needed only for a specification that outlives the one who checks: see `CheckSpec::with_start_of_process`.
        started: Option<u64>,
    },
}

impl CheckKind {
    /// How the kind is called.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Tcp { .. } => "tcp",
            Self::Http { .. } => "http",
            Self::Grpc { .. } => "grpc",
            Self::Command { .. } => "command",
            Self::Ttl { .. } => "ttl",
            Self::Pid { .. } => "pid",
        }
    }

    /// Whether it is attempted again and again. Of the others we are told.
    pub(crate) fn is_repeated(&self) -> bool {
        !matches!(self, Self::Ttl { .. } | Self::Pid { .. })
    }
}

/// What a check says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// The instance may be called.
    Passing,
    /// It may not.
    #[default]
    Failing,
}
