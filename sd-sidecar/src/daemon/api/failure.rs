//! What is answered when something is refused or fails, to every generation of clients in one shape.

use std::fmt::Display;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use sd_core::{Error, ErrorKind, Printable, brief};

use super::json;
use crate::daemon::registrations::Refused;
use crate::wire::envelope;

/// What is asked for again this much later may be there.
const SOON: Duration = Duration::from_secs(1);

/// Why a request is not answered with what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::daemon) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after: Option<Duration>,
    /// Whether the rest of the request was not read, so that the connection is of no more use.
    unread: bool,
}

impl Failure {
    /// A failure that `code` names to programs and `message` to people. The message is cut and escaped.
    pub(in crate::daemon) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Display,
    ) -> Self {
        Self {
            status,
            code,
            message: Printable(&brief(message)).to_string(),
            retry_after: None,
            unread: false,
        }
    }

    /// The request itself is wrong.
    pub(super) fn bad_request(message: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    /// The agent cannot do it now.
    pub(super) fn unavailable(code: &'static str, message: impl Display) -> Self {
        let failure = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        failure.retry_after(SOON)
    }

    /// What a registry said.
    pub(super) fn of_registry(error: &Error) -> Self {
        let (status, code) = match error.kind() {
            ErrorKind::InvalidInput => (StatusCode::BAD_REQUEST, "invalid_request"),
            ErrorKind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            ErrorKind::Conflict => (StatusCode::CONFLICT, "conflict"),
            ErrorKind::Unsupported => (StatusCode::NOT_IMPLEMENTED, "unsupported"),
            ErrorKind::Denied => (StatusCode::BAD_GATEWAY, "registry_denied"),
            ErrorKind::Rejected => (StatusCode::BAD_GATEWAY, "registry_rejected"),
            ErrorKind::InvalidData => (StatusCode::BAD_GATEWAY, "registry_invalid_data"),
            ErrorKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "registry_timeout"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "registry_unavailable"),
        };
        let failure = Self::new(status, code, error.report());
        match error.kind() {
            ErrorKind::RateLimited {
                retry_after: Some(after),
            } => failure.retry_after(after),
            _ if status == StatusCode::SERVICE_UNAVAILABLE => failure.retry_after(SOON),
            _ => failure,
        }
    }

    pub(in crate::daemon) fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The body of the request was not read to its end.
    pub(super) fn leaving_the_rest_unread(mut self) -> Self {
        self.unread = true;
        self
    }

    /// The same with another code.
    pub(super) fn with_code(mut self, code: &'static str) -> Self {
        self.code = code;
        self
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Invalid(text) => Self::bad_request(text),
            Refused::NotFound(text) => Self::new(StatusCode::NOT_FOUND, "service_not_found", text),
            Refused::NoCheck(text) => Self::new(StatusCode::NOT_FOUND, "not_found", text),
            Refused::NotYours(text) => Self::new(StatusCode::FORBIDDEN, "not_yours", text),
            Refused::TooMany(text) => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_registrations",
                text,
            ),
            Refused::Registry(error) => Self::of_registry(&error),
            Refused::Stopping => Self::unavailable("stopping", Refused::Stopping),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = envelope::failure(self.code, &self.message, SystemTime::now());
        let body = json::to_bytes(&body);
        let mut response = (self.status, Body::from(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if self.unread {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_says_has_a_status_that_tells_whose_fault_it_is() {
        let status = |kind| Failure::of_registry(&Error::new(kind, "test")).status();
        for (kind, expected) in [
            (ErrorKind::InvalidInput, 400),
            (ErrorKind::NotFound, 404),
            (ErrorKind::Conflict, 409),
            (ErrorKind::Unsupported, 501),
            (ErrorKind::Denied, 502),
            (ErrorKind::Rejected, 502),
            (ErrorKind::InvalidData, 502),
            (ErrorKind::Unavailable, 503),
            (ErrorKind::RateLimited { retry_after: None }, 503),
            (ErrorKind::Closed, 503),
            (ErrorKind::Timeout, 504),
        ] {
            assert_eq!(status(kind), expected, "{kind:?}");
        }
    }

    #[test]
    fn what_the_agent_refuses_has_a_status_for_each_reason() {
        let status = |refused| Failure::from(refused).status();
        assert_eq!(status(Refused::Invalid(String::new())), 400);
        assert_eq!(status(Refused::NotYours(String::new())), 403);
        assert_eq!(status(Refused::NotFound(String::new())), 404);
        assert_eq!(status(Refused::NoCheck(String::new())), 404);
        assert_eq!(status(Refused::TooMany(String::new())), 429);
        assert_eq!(status(Refused::Stopping), 503);
    }

    #[test]
    fn a_message_is_short_and_escaped_and_a_pause_is_told_in_whole_seconds() {
        let failure = Failure::bad_request(format_args!("\u{1b}[2J{}", "x".repeat(10_000)));
        assert!(failure.message.starts_with("\\u{1b}[2J"), "{failure:?}");
        assert!(failure.message.len() < 300, "{failure:?}");
        let pause = Failure::unavailable("stopping", "no").retry_after(Duration::from_millis(1200));
        let response = pause.into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    }
}
