//! What Consul and its HTTP interface answer when something fails, in our kinds.

use std::time::Duration;

use sd_backend::{other_server, with_hint};
use sd_core::{Error, ErrorKind};

/// More of an answer's text than this helps no reader.
const MOST_CHARS: usize = 300;

/// A request that was not answered, as ours.
pub(crate) fn unanswered(op: &'static str, error: reqwest::Error) -> Error {
    let kind = if error.is_timeout() {
        ErrorKind::Timeout
    } else if error.is_builder() {
        ErrorKind::InvalidInput
    } else {
        ErrorKind::Unavailable
    };
    Error::new(kind, op).with_source(with_hint(error.without_url()))
}

/// An answer other than success, as ours.
pub(crate) fn refused(
    op: &'static str,
    status: u16,
    retry_after: Option<Duration>,
    text: &str,
) -> Error {
    let mut shown: String = text.trim().chars().take(MOST_CHARS).collect();
    if shown.is_empty() {
        shown.push_str("no reason given");
    }
    let kind = kind(status, retry_after, text);
    let source = if status == 404 && kind == ErrorKind::Rejected && !text.contains(NO_SUCH_PATH) {
        other_server("Consul", format!("it answers {status}: {shown}"))
    } else {
        with_hint(format!("Consul answers {status}: {shown}"))
    };
    Error::new(kind, op).with_source(source)
}

/// Whether Consul says that a token does not allow something, or that there is none such.
pub(crate) fn says_denied(text: &str) -> bool {
    ["ACL not found", "Permission denied"]
        .iter()
        .any(|words| text.contains(words))
}

/// How Consul says that what a request names is not there.
const NO_SUCH: &[&str] = &["nknown check", "nknown service", "Session id", "ServiceId"];

/// How Consul says that it does not know a path.
const NO_SUCH_PATH: &str = "not a recognized HTTP API endpoint";

fn kind(status: u16, retry_after: Option<Duration>, text: &str) -> ErrorKind {
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match status {
        401 | 403 => ErrorKind::Denied,
        404 if says(NO_SUCH) => ErrorKind::NotFound,
        // Any other 404 is that of a proxy, and says nothing of what Consul has.
        400 | 404 | 405 | 413 | 501 => ErrorKind::Rejected,
        409 => ErrorKind::Conflict,
        429 => ErrorKind::RateLimited { retry_after },
        503 if retry_after.is_some() || says(&["rate limit"]) => {
            ErrorKind::RateLimited { retry_after }
        }
        500 if says_denied(text) => ErrorKind::Denied,
        500 if says(&["invalid session"]) => ErrorKind::LeaseLost,
        // Consul has no 400 for these.
        500 if says(&["Invalid Session TTL", "boolean expression"]) => ErrorKind::Rejected,
        // Among others while no server leads. Whatever else it is, the request itself was not at fault.
        _ => ErrorKind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use sd_backend::is_other_server;

    use super::*;

    #[test]
    fn the_answers_of_consul_have_the_kinds_that_lead_to_the_right_next_step() {
        let after = Some(Duration::from_secs(7));
        let limited = |retry_after| ErrorKind::RateLimited { retry_after };
        for (status, retry_after, text, kind) in [
            (500, None, "No cluster leader", ErrorKind::Unavailable),
            (502, None, "", ErrorKind::Unavailable),
            (503, None, "Service Unavailable", ErrorKind::Unavailable),
            (503, after, "", limited(after)),
            (
                503,
                None,
                "rate limit exceeded, try again later or against a different server",
                limited(None),
            ),
            (
                429,
                None,
                "Your IP is issuing too many concurrent connections, please rate limit your calls",
                limited(None),
            ),
            (403, None, "ACL not found", ErrorKind::Denied),
            (
                500,
                None,
                "rpc error making call: Permission denied",
                ErrorKind::Denied,
            ),
            (
                404,
                None,
                "Unknown check ID \"service:a\"",
                ErrorKind::NotFound,
            ),
            (404, None, "Session id 'x' not found", ErrorKind::NotFound),
            (404, None, "<h1>404 Not Found</h1>", ErrorKind::Rejected),
            (404, None, "404 page not found", ErrorKind::Rejected),
            (405, None, "method not allowed", ErrorKind::Rejected),
            (501, None, "Not Implemented", ErrorKind::Rejected),
            (
                400,
                None,
                "Invalid Service Meta: Value is too long (limit: 512 characters)",
                ErrorKind::Rejected,
            ),
            (
                500,
                None,
                "Invalid Session TTL '5000000000', must be between [10s=24h0m0s]",
                ErrorKind::Rejected,
            ),
            (
                500,
                None,
                "raft apply failed: invalid session \"x\"",
                ErrorKind::LeaseLost,
            ),
            (
                413,
                None,
                "Request body(600000 bytes) too large",
                ErrorKind::Rejected,
            ),
        ] {
            let error = refused("consul: test", status, retry_after, text);
            assert_eq!(error.kind(), kind, "{status} {text}");
            assert!(error.report().to_string().contains(text), "{text}");
        }
    }

    #[test]
    fn a_404_that_is_not_in_consuls_words_is_that_of_another_server() {
        for (status, text, is_other) in [
            (404, "404 page not found\n", true),
            (404, "<h1>Not Found</h1>", true),
            (404, "", true),
            (404, "Unknown service ID \"a\"", false),
            (
                404,
                "Invalid URL path: not a recognized HTTP API endpoint",
                false,
            ),
            (403, "Permission denied", false),
            (400, "Bad request", false),
        ] {
            let error = refused("consul: test", status, None, text);
            assert_eq!(is_other_server(&error), is_other, "{status} {text}");
        }
    }

    #[test]
    fn a_long_answer_is_cut_and_an_empty_one_is_said_to_be() {
        let long = refused("consul: test", 500, None, &"x".repeat(10_000));
        assert!(long.report().to_string().len() < 400);
        let empty = refused("consul: test", 500, None, "\n");
        assert!(empty.report().to_string().ends_with("no reason given"));
    }
}
