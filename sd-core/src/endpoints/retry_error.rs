//! How a call failed that was tried at several endpoints.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::error::Error;
use crate::model::endpoint::Endpoint;

/// A call that failed at every endpoint where it was tried.
#[derive(Debug)]
pub struct RetryError<E> {
    gave_up: GaveUp,
    attempts: Vec<FailedAttempt<E>>,
}

/// Why no further attempt was made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GaveUp {
    /// The last error is none of those that are retried.
    NotRetried,
    /// There were as many attempts as there may be.
    Attempts,
    /// The time for the whole call, which was this long, is over, or would be before the next attempt.
    Timeout(Duration),
    /// There was no endpoint, for this reason.
    NoEndpoint(Error),
}

/// An attempt that failed.
#[derive(Clone, Debug)]
pub struct FailedAttempt<E> {
    endpoint: Endpoint,
    error: AttemptError<E>,
}

/// How an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttemptError<E> {
    /// With this error.
    Failed(E),
    /// It took too long.
    TimedOut,
}

impl<E> FailedAttempt<E> {
    pub(super) fn new(endpoint: Endpoint, error: AttemptError<E>) -> Self {
        Self { endpoint, error }
    }

    /// Where.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How.
    pub fn error(&self) -> &AttemptError<E> {
        &self.error
    }
}

impl<E> RetryError<E> {
    pub(super) fn new(gave_up: GaveUp, attempts: Vec<FailedAttempt<E>>) -> Self {
        Self { gave_up, attempts }
    }

    /// Why no further attempt was made.
    pub fn gave_up(&self) -> &GaveUp {
        &self.gave_up
    }

    /// The attempts, in the order in which they were made.
    pub fn attempts(&self) -> &[FailedAttempt<E>] {
        &self.attempts
    }

    /// The error of the last attempt. `None` if there was no attempt, or if it took too long.
    pub fn into_last(mut self) -> Option<E> {
        match self.attempts.pop()?.error {
            AttemptError::Failed(error) => Some(error),
            AttemptError::TimedOut => None,
        }
    }
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRetried => f.write_str("this error is not retried"),
            Self::Attempts => f.write_str("no attempt is left"),
            Self::Timeout(timeout) => write!(f, "no time is left of {timeout:?}"),
            Self::NoEndpoint(_) => f.write_str("there is no endpoint"),
        }
    }
}

/// Says where and why no further attempt was made. The [source](StdError::source) is the last error, or why there is no endpoint.
impl<E> fmt::Display for RetryError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("call failed")?;
        for (nth, FailedAttempt { endpoint, error }) in self.attempts.iter().enumerate() {
            let before = if nth == 0 { " at" } else { "," };
            write!(f, "{before} {endpoint}")?;
            if matches!(error, AttemptError::TimedOut) {
                f.write_str(" (timed out)")?;
            }
        }
        write!(f, ": {}", self.gave_up)
    }
}

impl<E: StdError + 'static> StdError for RetryError<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        if let GaveUp::NoEndpoint(error) = &self.gave_up {
            return Some(error);
        }
        match &self.attempts.last()?.error {
            AttemptError::Failed(error) => Some(error),
            AttemptError::TimedOut => None,
        }
    }
}
