//! The error type of the workspace, and what a caller can do about each kind.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::brief::cut;
use crate::model::endpoint::Endpoint;
use crate::model::instance::{Incarnation, Instance};
use crate::printable::Printable;

/// More of one cause's text than this helps no reader, and what a server sends may be as long as it likes.
const MOST_BYTES: usize = 4096;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, named for what the caller can do about it. Only [`ErrorKind::retry`] decides about retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The server cannot be reached or cannot serve now: refused, reset, no leader, 5xx.
    Unavailable,
    /// No answer in time. A write may have happened: read before you write again.
    Timeout,
    /// The server asks for fewer requests, possibly after a stated time.
    RateLimited {
        /// How long the server asks to wait, if it says so.
        retry_after: Option<Duration>,
    },
    /// The position in the change feed is gone (compaction, index reset). Read everything again.
    Outdated,
    /// The lease or session of a registration or an election entry is gone.
    LeaseLost,
    /// Credentials or access rights are missing. An operator can fix that, so loops retry.
    Denied,
    /// The server holds or sent data that cannot be read.
    InvalidData,
    /// Another owner holds what was asked for.
    Conflict,
    /// What was asked for does not exist.
    NotFound,
    /// The caller's input can never work. This is known here: nothing was sent.
    InvalidInput,
    /// This backend cannot do it.
    Unsupported,
    /// The server, or a proxy before it, refuses the request as it stands: a bad request, too large, not implemented. The next one may
    /// have another answer, after a restart, an upgrade or a change of the proxy.
    Rejected,
    /// The registry, guard or channel was closed by its owner.
    Closed,
}

/// What a loop should do after an error of a given kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Wait with a delay that grows with each attempt, then do the same again.
    Backoff,
    /// Wait exactly this long, then do the same again.
    After(Duration),
    /// Discard the position in the feed and read everything again.
    Resync,
    /// Give up: no retry of the same request can succeed. Only after what is known here, whatever a server says.
    Never,
}

impl ErrorKind {
    /// What a loop should do after an error of this kind.
    pub fn retry(self) -> Retry {
        match self {
            Self::RateLimited {
                retry_after: Some(after),
            } => Retry::After(after),
            Self::Outdated => Retry::Resync,
            Self::InvalidInput | Self::Unsupported | Self::Closed => Retry::Never,
            Self::Unavailable
            | Self::Timeout
            | Self::RateLimited { retry_after: None }
            | Self::LeaseLost
            | Self::Denied
            | Self::InvalidData
            | Self::Conflict
            | Self::NotFound
            | Self::Rejected => Retry::Backoff,
        }
    }

    /// A stable name for metrics, logs and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::RateLimited { .. } => "rate_limited",
            Self::Outdated => "outdated",
            Self::LeaseLost => "lease_lost",
            Self::Denied => "denied",
            Self::InvalidData => "invalid_data",
            Self::Conflict => "conflict",
            Self::NotFound => "not_found",
            Self::InvalidInput => "invalid_input",
            Self::Unsupported => "unsupported",
            Self::Rejected => "rejected",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unavailable => "unavailable",
            Self::Timeout => "timed out",
            Self::RateLimited { .. } => "rate limited",
            Self::Outdated => "feed position outdated",
            Self::LeaseLost => "lease lost",
            Self::Denied => "denied",
            Self::InvalidData => "invalid data",
            Self::Conflict => "conflict",
            Self::NotFound => "not found",
            Self::InvalidInput => "invalid input",
            Self::Unsupported => "unsupported",
            Self::Rejected => "rejected by the server",
            Self::Closed => "closed",
        })
    }
}

/// The error of every fallible call in this workspace: a kind, the operation that failed, and the cause.
///
/// `Display` prints operation and kind, and with whom a conflict is. The cause is in [`source`](StdError::source).
/// [`Error::report`] shows the whole chain on one line. Clones share the cause.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    op: &'static str,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    holder: Option<Arc<Holder>>,
}

/// The run that holds what another one asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Where clients dial it.
    pub endpoint: Endpoint,
    /// Its incarnation.
    pub incarnation: Incarnation,
}

impl Holder {
    /// The run with this incarnation at this address.
    pub fn new(endpoint: Endpoint, incarnation: Incarnation) -> Self {
        Self {
            endpoint,
            incarnation,
        }
    }
}

impl From<&Instance> for Holder {
    fn from(instance: &Instance) -> Self {
        Self::new(instance.endpoint().clone(), instance.incarnation())
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `Debug` escapes what is not printable.
        write!(f, "incarnation {} at {:?}", self.incarnation, self.endpoint)
    }
}

impl Error {
    /// An error of this kind in the operation `op`, a constant, for example `"etcd: list service"`.
    pub fn new(kind: ErrorKind, op: &'static str) -> Self {
        Self {
            kind,
            op,
            source: None,
            holder: None,
        }
    }

    /// [`ErrorKind::InvalidInput`] with a sentence that says what is wrong and what to write instead.
    pub fn invalid_input(op: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, op).because(message)
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Adds a sentence as the cause. No more than 4 KiB of it are kept.
    #[must_use]
    pub fn because(self, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MOST_BYTES {
            message = cut(&message, MOST_BYTES);
        }
        self.with_source(message)
    }

    /// Says which run holds what was asked for.
    #[must_use]
    pub fn held_by(mut self, holder: impl Into<Holder>) -> Self {
        self.holder = Some(Arc::new(holder.into()));
        self
    }

    /// Which run holds what was asked for, after a [`Conflict`](ErrorKind::Conflict) with a run whose record could be read.
    pub fn holder(&self) -> Option<&Holder> {
        self.holder.as_deref()
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The operation that failed.
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// The chain of causes on one line, for people. Shows at most 4 KiB of each cause, and no more causes after that much.
    pub fn report(&self) -> Report<'_> {
        Report(self)
    }
}

/// Lets a value of the right type stand where a fallible conversion is accepted.
impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({})", self.report())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.op, self.kind)?;
        match &self.holder {
            Some(holder) => write!(f, " with {holder}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

/// Prints an [`Error`] and all its causes on one line, with what is not printable escaped.
#[derive(Debug)]
pub struct Report<'a>(&'a Error);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut cause = StdError::source(self.0);
        while let Some(error) = cause.filter(|_| text.len() < MOST_BYTES) {
            let next = cut(error, MOST_BYTES);
            // Some libraries repeat their cause in their own text. It is shown once.
            if !text.contains(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            cause = error.source();
        }
        for (index, line) in text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .enumerate()
        {
            if index > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{}", Printable(line))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_operation_and_kind_and_leaves_the_cause_to_source() {
        let error =
            Error::new(ErrorKind::Unavailable, "etcd: list service").because("connection refused");
        assert_eq!(error.to_string(), "etcd: list service: unavailable");
        assert_eq!(error.source().unwrap().to_string(), "connection refused");
    }

    #[test]
    fn a_conflict_says_with_whom() {
        let holder = Holder::new("h:1".parse().unwrap(), Incarnation::from_u64(42));
        let error = Error::new(ErrorKind::Conflict, "register")
            .held_by(holder.clone())
            .because("use another id");
        assert_eq!(error.holder(), Some(&holder));
        assert_eq!(
            error.report().to_string(),
            "register: conflict with incarnation 000000000000002a at h:1: use another id"
        );
    }

    #[test]
    fn a_report_is_one_line_and_says_each_cause_once() {
        let inner = Error::new(ErrorKind::Timeout, "dial").because("after 2s\n(no answer)");
        let outer = Error::new(ErrorKind::Unavailable, "connect").with_source(inner);
        assert_eq!(
            outer.report().to_string(),
            "connect: unavailable: dial: timed out: after 2s (no answer)"
        );
    }

    #[test]
    fn a_cause_of_any_length_makes_a_short_report() {
        let long = "x".repeat(1 << 20);
        let kept = Error::new(ErrorKind::InvalidData, "read").because(long.clone());
        let foreign = Error::new(ErrorKind::InvalidData, "read").with_source(long);
        for error in [&kept, &foreign] {
            let report = error.report().to_string();
            assert!(report.len() < 2 * MOST_BYTES && report.ends_with('…'));
        }
        assert!(kept.source().unwrap().to_string().len() <= MOST_BYTES);
    }

    #[test]
    fn a_report_escapes_what_a_terminal_would_obey() {
        let error = Error::invalid_input("connect", "\u{1b}[2J \u{202e}txt");
        assert_eq!(
            error.report().to_string(),
            r"connect: invalid input: \u{1b}[2J \u{202e}txt"
        );
    }

    #[test]
    fn only_a_mistake_of_the_caller_or_a_closed_handle_ends_a_loop() {
        assert_eq!(ErrorKind::Denied.retry(), Retry::Backoff);
        assert_eq!(ErrorKind::Outdated.retry(), Retry::Resync);
        assert_eq!(ErrorKind::Closed.retry(), Retry::Never);
        assert_eq!(ErrorKind::Rejected.retry(), Retry::Backoff);
        let pause = Duration::from_secs(3);
        assert_eq!(
            ErrorKind::RateLimited {
                retry_after: Some(pause)
            }
            .retry(),
            Retry::After(pause)
        );
    }
}
