//! What one call may ask for, in its request's extensions, and what its answer tells.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Marks a call that may be executed twice without harm: it is sent again after any failure that may pass. In a request's
/// extensions; [`ChannelConfig::idempotent_methods`](crate::ChannelConfig::idempotent_methods) marks whole methods.
///
/// ```
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(sd_grpc::Idempotent);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotent;

/// Says whether a call waits until its deadline for an endpoint instead of failing when there is none. In a request's
/// extensions; overrides [`ChannelConfig::wait_for_ready`](crate::ChannelConfig::wait_for_ready).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitForReady(pub bool);

/// Which endpoint a call ended at, and after how many attempts. In the extensions of every response; for a failed call see
/// [`AttemptInfo::of`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptInfo {
    pub(crate) endpoint: Arc<str>,
    pub(crate) attempts: u32,
}

impl AttemptInfo {
    /// What a failed call's status tells, if an attempt was made.
    pub fn of(status: &tonic::Status) -> Option<&Self> {
        let mut cause = status.source();
        while let Some(error) = cause {
            if let Some(failure) = error.downcast_ref::<CallFailure>() {
                return Some(&failure.attempt);
            }
            cause = error.source();
        }
        None
    }

    /// The address of the endpoint of the last attempt.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// How many attempts were made. What was never sent does not count.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// Carries [`AttemptInfo`] and the cause inside a status.
#[derive(Debug)]
pub(crate) struct CallFailure {
    pub(crate) attempt: AttemptInfo,
    pub(crate) cause: Option<hyper::Error>,
}

impl fmt::Display for CallFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AttemptInfo { endpoint, attempts } = &self.attempt;
        write!(f, "attempt {attempts} at {endpoint}")
    }
}

impl Error for CallFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause
            .as_ref()
            .map(|cause| cause as &(dyn Error + 'static))
    }
}
