//! What a resolver and its client answer when something fails, in our kinds.

use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::ResponseCode;
use sd_backend::with_hint;
use sd_core::{Error, ErrorKind};

/// Why a resolver gave no answer that can be used.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    pub(crate) why: String,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, why: impl Into<String>) -> Self {
        Self {
            kind,
            why: why.into(),
        }
    }

    /// Of a resolver that answers with this error.
    pub(crate) fn refused(code: ResponseCode) -> Self {
        let kind = match code {
            ResponseCode::Refused | ResponseCode::NotAuth => ErrorKind::Denied,
            ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS => {
                ErrorKind::Rejected
            }
            _ => ErrorKind::Unavailable,
        };
        let hint = match code {
            ResponseCode::Refused => ": it does not answer for this name, or not this client",
            ResponseCode::ServFail => ": it could not find out",
            _ => "",
        };
        Self::new(kind, format!("answered {code}{hint}"))
    }

    /// The error of the operation that needed the answer.
    pub(crate) fn of(self, op: &'static str) -> Error {
        Error::new(self.kind, op).with_source(with_hint(self.why))
    }
}

impl From<NetError> for Failure {
    fn from(error: NetError) -> Self {
        match error {
            NetError::Timeout => Self::new(ErrorKind::Timeout, "no answer in time"),
            NetError::Io(error) => Self::new(ErrorKind::Unavailable, error.to_string()),
            NetError::Busy => Self::new(
                ErrorKind::Unavailable,
                "it has ended the connection, or too many questions are already waiting for its answers",
            ),
            NetError::Proto(error) => Self::new(
                ErrorKind::InvalidData,
                format!("its answer cannot be read: {error}"),
            ),
            NetError::Truncated => Self::new(
                ErrorKind::InvalidData,
                "its answer was cut short, also over TCP",
            ),
            error => Self::new(ErrorKind::Unavailable, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_it_is_and_is_asked_again() {
        for (code, kind, word) in [
            (ResponseCode::ServFail, ErrorKind::Unavailable, "find out"),
            (ResponseCode::Refused, ErrorKind::Denied, "this name"),
            (ResponseCode::NotImp, ErrorKind::Rejected, "answered"),
        ] {
            let failure = Failure::refused(code);
            assert_eq!(failure.kind, kind);
            assert!(failure.why.contains(word), "{failure:?}");
            assert_ne!(failure.kind.retry(), sd_core::retry::Retry::Never);
        }
    }
}
