//! What one call may ask for, in its request's extensions, and what its answer tells.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Marks a call that may be executed twice without harm: it is sent again after any failure that may pass. In a request's
/// extensions; [`ChannelConfig::idempotent_methods`](crate::ChannelConfig::idempotent_methods) marks whole methods.
///
/// The call can move until it is answered: by the first message of its response, unless [`AnsweredBy`] says something else.
///
/// ```
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(sd_grpc::Idempotent);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotent;

/// Which part of its response answers an idempotent call. The caller gets nothing of the response before this part has come,
/// and until then the call can move to another endpoint. [`attempt_timeout`](crate::ChannelConfig::attempt_timeout) covers the
/// same time.
///
/// In the extensions of a request that is marked [`Idempotent`];
/// [`ChannelConfig::answered_by`](crate::ChannelConfig::answered_by) says it of whole methods. A channel cannot tell a method
/// that answers with a stream from one that answers with a single message.
///
/// Headers answer a call whatever this says: if it is not idempotent, in its last attempt, and while the caller still has
/// something to send.
///
/// ```
/// use sd_grpc::{AnsweredBy, Idempotent};
///
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(Idempotent);
/// request.extensions_mut().insert(AnsweredBy::End);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnsweredBy {
    /// The headers, for streams whose first message may be late. From then on only the deadline ends the call, and a server that
    /// dies fails it.
    Headers,
    /// The beginning of the first message, or the end of a response that has none. The default, because it fits most methods.
    /// The call of a method that answers with a stream returns with its first message. So a caller that must act before the
    /// server sends one waits in vain.
    #[default]
    FirstMessage,
    /// The end of the response, for methods that answer with a single message. Their servers may die between the message and
    /// the status that follows. A response of more than 64 KiB answers the call before its end. Not for streams: the caller
    /// would not see a message before the last one has come.
    End,
}

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
