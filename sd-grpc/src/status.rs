//! How failures read: one `tonic::Status` with a sentence that names endpoint and cause.

use std::error::Error;
use std::fmt::Display;
use std::sync::Arc;

use h2::Reason;
use tonic::{Code, Status};

use crate::options::{AttemptInfo, CallFailure};

fn failed(
    code: Code,
    message: String,
    attempt: AttemptInfo,
    cause: Option<hyper::Error>,
) -> Status {
    let mut status = Status::new(code, message);
    status.set_source(Arc::new(CallFailure { attempt, cause }));
    status
}

/// No endpoint could be had.
pub(crate) fn no_endpoint(service: &str, reason: impl Display) -> Status {
    Status::unavailable(format!("no usable endpoint of {service:?}: {reason}"))
}

/// The bound on waiting calls is reached.
pub(crate) fn too_many_wait(service: &str, most: usize) -> Status {
    Status::resource_exhausted(format!(
        "{most} calls (max_waiting) already wait for an endpoint of {service:?}"
    ))
}

/// The call's deadline passed.
pub(crate) fn deadline_exceeded(when: impl Display, attempt: Option<AttemptInfo>) -> Status {
    match attempt {
        None => Status::deadline_exceeded(format!("the deadline passed {when}")),
        Some(attempt) => failed(
            Code::DeadlineExceeded,
            format!(
                "the deadline passed {when} (attempt {} at {})",
                attempt.attempts, attempt.endpoint
            ),
            attempt,
            None,
        ),
    }
}

/// An attempt took longer than an attempt may.
pub(crate) fn attempt_timed_out(attempt: AttemptInfo) -> Status {
    let message = format!(
        "{} did not answer within attempt_timeout (attempt {})",
        attempt.endpoint, attempt.attempts
    );
    failed(Code::Unavailable, message, attempt, None)
}

/// A stream broke.
pub(crate) fn broken(error: hyper::Error, reason: Option<String>, attempt: AttemptInfo) -> Status {
    let why = reason.unwrap_or_else(|| root_cause(&error).to_string());
    let message = format!(
        "the call to {} failed: {why} (attempt {})",
        attempt.endpoint, attempt.attempts
    );
    failed(code_of(&error), message, attempt, Some(error))
}

/// The code for a broken stream, as gRPC over HTTP/2 maps resets; a lost connection is UNAVAILABLE.
pub(crate) fn code_of(error: &hyper::Error) -> Code {
    match h2_error(error) {
        Some(error) if error.is_reset() => match error.reason() {
            Some(Reason::REFUSED_STREAM) => Code::Unavailable,
            Some(Reason::CANCEL) => Code::Cancelled,
            Some(Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
            Some(Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
            _ => Code::Internal,
        },
        _ => Code::Unavailable,
    }
}

/// Whether the server said that it did not look at the request: it refused the stream, or sent GOAWAY before it.
pub(crate) fn is_refused(error: &hyper::Error) -> bool {
    // h2 gives a received GOAWAY as the error of those streams only that are newer than the last one processed. Streams that
    // were cut off later have an I/O error.
    h2_error(error).is_some_and(|error| {
        error.is_remote()
            && (error.is_go_away()
                || (error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM)))
    })
}

fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<h2::Error>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// The innermost error: the one that says what happened.
pub(crate) fn root_cause(error: &hyper::Error) -> &(dyn Error + 'static) {
    let mut cause: &(dyn Error + 'static) = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause
}
