//! How failures read: one `tonic::Status` with a sentence that names endpoint and cause.

use std::error::Error;
use std::fmt::Display;
use std::sync::Arc;

use h2::Reason;
use http::HeaderMap;
use tonic::{Code, Status};

use crate::options::{AttemptInfo, CallFailure};

fn failed(code: Code, message: String, attempt: AttemptInfo, cause: Option<h2::Error>) -> Status {
    let mut status = Status::new(code, message);
    status.set_source(Arc::new(CallFailure {
        attempt,
        cause,
        by_server: false,
    }));
    status
}

/// The failure that a server's headers or trailers tell, which hold this code; `None` if they tell of none.
pub(crate) fn by_server(
    code: Code,
    headers: &HeaderMap,
    attempt: impl FnOnce() -> AttemptInfo,
) -> Option<Status> {
    // Making a status copies all headers.
    if code == Code::Ok {
        return None;
    }
    let mut status = Status::from_header_map(headers)?;
    status.set_source(Arc::new(CallFailure {
        attempt: attempt(),
        cause: None,
        by_server: true,
    }));
    Some(status)
}

/// The code as gRPC writes it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Whether a server sent it.
pub(crate) fn is_by_server(status: &Status) -> bool {
    let failure = status.source().and_then(<dyn Error>::downcast_ref);
    failure.is_some_and(|failure: &CallFailure| failure.by_server)
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

/// HTTP/2 cannot carry the request.
pub(crate) fn invalid_request(error: &h2::Error) -> Status {
    Status::internal(format!("the request cannot be sent over HTTP/2: {error}"))
}

/// The request's headers exceed what the server takes.
pub(crate) fn headers_too_large(endpoint: &str, bytes: u64, limit: u32) -> Status {
    Status::resource_exhausted(format!(
        "the request's headers take {bytes} bytes and {endpoint} allows {limit} (SETTINGS_MAX_HEADER_LIST_SIZE)"
    ))
}

/// What answered is no gRPC server.
pub(crate) fn foreign(code: Code, why: &str, attempt: AttemptInfo) -> Status {
    let message = format!("{} {why} (attempt {})", attempt.endpoint, attempt.attempts);
    failed(code, message, attempt, None)
}

/// h2 refused the response, for its size or for what it holds. The server has answered: no other one is to be asked.
pub(crate) fn unreadable(error: h2::Error, attempt: AttemptInfo) -> Status {
    let message = format!(
        "the response of {} could not be read, or its headers exceed max_header_list_size: {error} (attempt {})",
        attempt.endpoint, attempt.attempts
    );
    failed(Code::Internal, message, attempt, Some(error))
}

/// A stream broke.
pub(crate) fn broken(error: h2::Error, reason: Option<String>, attempt: AttemptInfo) -> Status {
    let why = reason.unwrap_or_else(|| error.to_string());
    let message = format!(
        "the call to {} failed: {why} (attempt {})",
        attempt.endpoint, attempt.attempts
    );
    failed(code_of(&error), message, attempt, Some(error))
}

/// Whether the server ended the stream because its deadline had passed, as far as it can say so.
pub(crate) fn is_cancelled(error: &h2::Error) -> bool {
    error.is_remote() && error.is_reset() && error.reason() == Some(Reason::CANCEL)
}

/// The code for a broken stream, as gRPC over HTTP/2 maps resets; a lost connection is UNAVAILABLE.
fn code_of(error: &h2::Error) -> Code {
    if !error.is_reset() {
        return Code::Unavailable;
    }
    match error.reason() {
        Some(Reason::REFUSED_STREAM) => Code::Unavailable,
        Some(Reason::CANCEL) => Code::Cancelled,
        Some(Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
        Some(Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
        _ => Code::Internal,
    }
}

/// Whether the server said that it did not look at the request: it refused the stream, or sent GOAWAY before it.
pub(crate) fn is_refused(error: &h2::Error) -> bool {
    // h2 gives a received GOAWAY as the error of those streams only that are newer than the last one processed. Streams that
    // were cut off later have an I/O error.
    error.is_remote()
        && (error.is_go_away()
            || (error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM)))
}
