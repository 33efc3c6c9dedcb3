//! What one call may ask for, in its request's extensions, and what its answer tells.

use serde::Deserialize;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Marks a call that is safe to execute twice: the channel retries it after any transient failure. Insert it into a request's
/// extensions; [`ChannelConfig::idempotent_methods`](crate::ChannelConfig::idempotent_methods) marks whole methods.
///
/// The call can move to another endpoint until it is answered: by the first message of its response, unless [`AnsweredBy`]
/// says otherwise.
///
/// ```
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(sd_grpc::Idempotent);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotent;

/// Which part of the response answers an idempotent call. Until this part has arrived, the caller gets nothing of the response
/// and the call can move to another endpoint. [`attempt_timeout`](crate::ChannelConfig::attempt_timeout) covers the same time.
///
/// Insert it into the extensions of a request that is marked [`Idempotent`];
/// [`ChannelConfig::answered_by`](crate::ChannelConfig::answered_by) sets it for whole methods. A channel cannot tell a method
/// that answers with a stream from one that answers with a single message.
///
/// Whatever this says, headers answer a call that is not idempotent, a last attempt, and a call whose request is still being
/// sent.
///
/// ```
/// use sd_grpc::{AnsweredBy, Idempotent};
///
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(Idempotent);
/// request.extensions_mut().insert(AnsweredBy::End);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AnsweredBy {
    /// The headers, for streams whose first message may be late. After the headers, only the deadline limits the call, and the
    /// call fails if its server dies.
    Headers,
    /// The beginning of the first message, or the end of a response without one. The default, because it fits most methods.
    /// A call that is answered with a stream returns with its first message, so a caller that must act before the server sends
    /// one waits in vain.
    #[default]
    FirstMessage,
    /// The end of the response, for methods that answer with a single message: a server may die between this message and the
    /// status that follows it. A response of more than 64 KiB answers the call before its end. Not for streams: the caller
    /// would see no message before the last one has arrived.
    End,
}

/// Whether a call waits until its deadline for an endpoint instead of failing when there is none. Insert it into a request's
/// extensions; overrides [`ChannelConfig::wait_for_ready`](crate::ChannelConfig::wait_for_ready).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitForReady(pub bool);

/// What a policy of consistent hashing goes by: calls with one key belong to one endpoint. Insert it into a request's extensions. The
/// policies of this workspace do not look at it; those of others see it in
/// [`CallInfo::hash_key`](sd_core::balance::CallInfo::hash_key).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKey(pub u64);

/// The endpoint where a call ended, and the number of attempts. Every response has it in its extensions; for a failed call see
/// [`AttemptInfo::of`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptInfo {
    pub(crate) endpoint: Arc<str>,
    pub(crate) attempts: u32,
}

impl AttemptInfo {
    /// Reads it from a failed call's status, whether the server sent that or not. `None` if no attempt was made.
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

    /// The address of the last attempt's endpoint.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// How many attempts were made. Requests that were never sent do not count, nor does the first one that a server refused.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// Carries [`AttemptInfo`] and the cause inside a status.
#[derive(Debug)]
pub(crate) struct CallFailure {
    pub(crate) attempt: AttemptInfo,
    pub(crate) cause: Option<h2::Error>,
    /// The server itself sent the status.
    pub(crate) by_server: bool,
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
