//! What etcd and its client answer when something fails, in our kinds.

use std::future::Future;

use sd_backend::{hint_in, hinted, other_server, with_hint};
use sd_core::{Error, ErrorKind, panics};
use tonic::{Code, Status};

/// What to do when etcd takes no value any more.
pub(crate) const FULL: &str = "etcd's database is full: make room with etcdctl compact REVISION, then etcdctl defrag --cluster, and end \
                              the alarm with etcdctl alarm disarm; or give etcd a larger --quota-backend-bytes";

/// What should answer.
pub(crate) const EXPECTED: &str = "etcd";

/// An etcd error as ours.
pub(crate) fn translate(op: &'static str, error: etcd_client::Error) -> Error {
    let kind = kind(&error);
    let source = match error {
        etcd_client::Error::GRpcStatus(status) if says_full(&status) => {
            hinted(FULL, explain(&status))
        }
        etcd_client::Error::GRpcStatus(status) if status.code() == Code::Unimplemented => {
            other_server(EXPECTED, explain(&status))
        }
        // The status alone: etcd-client's own text around it says nothing more.
        etcd_client::Error::GRpcStatus(status) => with_hint(explain(&status)),
        other => with_hint(other.to_string()),
    };
    Error::new(kind, op).with_source(source)
}

/// Whether etcd takes no value, because its database has reached its quota.
fn says_full(status: &Status) -> bool {
    status.message().contains("database space exceeded")
}

fn explain(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    if text.is_empty() {
        status.code().description().clone_into(&mut text);
    }
    text
}

/// Does a request, and makes an error of a panic of the client crate: tonic's at trailers that are not as it expects, for instance.
/// Another endpoint may do better. Cancel-safe as far as the request is.
pub(crate) fn caught<T>(
    request: impl Future<Output = Result<T, etcd_client::Error>>,
) -> impl Future<Output = Result<T, etcd_client::Error>> {
    // A request is large, and so would be everything that waits for one.
    let request = Box::pin(request);
    async move {
        let answered = panics::caught("read the answer", async { Ok(request.await) }).await;
        answered.unwrap_or_else(|panic| {
            Err(etcd_client::Error::WatchError(format!(
                "the client cannot take the server's answer: {}",
                panic.report()
            )))
        })
    }
}

/// Whether another endpoint may do better. Not if the database is full, as it is at all of them.
pub(crate) fn is_unreachable(error: &Error) -> bool {
    sd_backend::is_unreachable(error) && !is_full(error)
}

/// Whether the server answered that it takes no value, because its database is full.
pub(crate) fn is_full(error: &Error) -> bool {
    hint_in(error) == Some(FULL)
}

/// Whether what answers knows no such request, and so has not carried it out: it is no etcd, or not any more. Another endpoint may be one.
pub(crate) fn is_no_etcd(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.code() == Code::Unimplemented)
}

/// Whether the request was turned away unread because the login is no longer valid. A new one may help.
pub(crate) fn is_login_outdated(error: &etcd_client::Error) -> bool {
    match error {
        etcd_client::Error::GRpcStatus(status) => match status.code() {
            Code::Unauthenticated => true,
            Code::InvalidArgument => {
                let message = status.message();
                message.contains("revision of auth store is old")
                    || message.contains("user name is empty")
            }
            _ => false,
        },
        _ => false,
    }
}

/// Whether the server does not use authentication, although we tried to log in.
pub(crate) fn is_login_needless(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status)
        if status.message().contains("authentication is not enabled"))
}

fn kind(error: &etcd_client::Error) -> ErrorKind {
    match error {
        etcd_client::Error::GRpcStatus(status) => status_kind(status),
        // etcd-client's text for a keep-alive that was answered with a time-to-live of 0.
        etcd_client::Error::LeaseKeepAliveError(text) if text.contains("lease not found") => {
            ErrorKind::LeaseLost
        }
        etcd_client::Error::InvalidArgs(_)
        | etcd_client::Error::InvalidUri(_)
        | etcd_client::Error::InvalidMetadataValue(_) => ErrorKind::InvalidInput,
        etcd_client::Error::Utf8Error(_) => ErrorKind::InvalidData,
        _ => ErrorKind::Unavailable,
    }
}

/// How etcd's own errors begin.
const ETCD_SAYS: &str = "etcdserver:";

fn status_kind(status: &Status) -> ErrorKind {
    let message = status.message();
    match status.code() {
        Code::DeadlineExceeded => ErrorKind::Timeout,
        Code::OutOfRange if message.contains("compacted") => ErrorKind::Outdated,
        // A server that lost its data, or an older member: its history does not reach as far as ours.
        Code::OutOfRange if message.contains("future revision") => ErrorKind::Outdated,
        Code::NotFound if message.contains("lease not found") => ErrorKind::LeaseLost,
        Code::NotFound if message.starts_with(ETCD_SAYS) => ErrorKind::NotFound,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Denied,
        Code::InvalidArgument if is_about_login(message) => ErrorKind::Denied,
        // A proxy that knows no gRPC, or not this method, is "unimplemented" as well.
        Code::InvalidArgument | Code::NotFound | Code::Unimplemented => ErrorKind::Rejected,
        Code::ResourceExhausted if says_full(status) => ErrorKind::Unavailable,
        Code::ResourceExhausted => ErrorKind::RateLimited { retry_after: None },
        Code::DataLoss => ErrorKind::InvalidData,
        // Whatever else it is, the request itself was not at fault.
        _ => ErrorKind::Unavailable,
    }
}

/// etcd answers some refused logins as invalid arguments.
fn is_about_login(message: &str) -> bool {
    [
        "authentication failed",
        "user name is empty",
        "auth store is old",
        "invalid auth",
    ]
    .iter()
    .any(|text| message.contains(text))
}

/// The kind of a watch that the server cancelled for this reason.
pub(crate) fn cancel_kind(reason: &str) -> ErrorKind {
    if is_about_login(reason) || reason.contains("permission denied") {
        ErrorKind::Denied
    } else if reason.contains("compacted") {
        ErrorKind::Outdated
    } else {
        ErrorKind::Unavailable
    }
}

/// The same error, for each of those whom it concerns.
pub(crate) fn copy(error: &etcd_client::Error) -> etcd_client::Error {
    match error {
        etcd_client::Error::GRpcStatus(status) => etcd_client::Error::GRpcStatus(status.clone()),
        other => etcd_client::Error::WatchError(other.to_string()),
    }
}

/// The error of a stream that the server ended without one.
pub(crate) fn stream_ended() -> etcd_client::Error {
    etcd_client::Error::WatchError("the server ended the stream".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_etcd_have_the_kinds_that_lead_to_the_right_next_step() {
        for (code, message, kind) in [
            (
                Code::Unavailable,
                "etcdserver: no leader",
                ErrorKind::Unavailable,
            ),
            (
                Code::Unknown,
                "h2 protocol error: error reading a body from connection",
                ErrorKind::Unavailable,
            ),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                ErrorKind::Outdated,
            ),
            (
                Code::NotFound,
                "etcdserver: requested lease not found",
                ErrorKind::LeaseLost,
            ),
            (
                Code::Unauthenticated,
                "etcdserver: invalid auth token",
                ErrorKind::Denied,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                ErrorKind::Denied,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: user name is empty",
                ErrorKind::Denied,
            ),
            (
                Code::PermissionDenied,
                "etcdserver: permission denied",
                ErrorKind::Denied,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: request is too large",
                ErrorKind::Rejected,
            ),
            (
                Code::Unimplemented,
                "unknown service etcdserverpb.Watch",
                ErrorKind::Rejected,
            ),
            (
                Code::ResourceExhausted,
                "etcdserver: too many requests",
                ErrorKind::RateLimited { retry_after: None },
            ),
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                ErrorKind::Unavailable,
            ),
        ] {
            let error = translate("etcd: test", Status::new(code, message).into());
            assert_eq!(error.kind(), kind, "{message}");
            assert!(error.report().to_string().contains(message));
        }
    }

    #[test]
    fn a_full_database_is_told_with_what_to_do_and_is_no_reason_to_change_the_endpoint() {
        let full = Status::new(
            Code::ResourceExhausted,
            "etcdserver: mvcc: database space exceeded",
        );
        let error = translate("etcd: test", full.into());
        assert!(is_full(&error) && !is_unreachable(&error));
        let report = error.report().to_string();
        for command in ["compact", "defrag", "alarm disarm"] {
            assert!(report.contains(command), "{report}");
        }
        let down = translate("etcd: test", Status::unavailable("no leader").into());
        assert!(is_unreachable(&down) && !is_full(&down));
    }

    #[test]
    fn only_an_outdated_login_is_worth_logging_in_again() {
        let outdated = |code, message: &str| is_login_outdated(&Status::new(code, message).into());
        assert!(outdated(
            Code::Unauthenticated,
            "etcdserver: invalid auth token"
        ));
        assert!(outdated(
            Code::InvalidArgument,
            "etcdserver: revision of auth store is old"
        ));
        assert!(!outdated(
            Code::InvalidArgument,
            "etcdserver: authentication failed"
        ));
        assert!(!outdated(
            Code::PermissionDenied,
            "etcdserver: permission denied"
        ));
    }
}
