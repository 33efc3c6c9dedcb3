//! What ZooKeeper and its client answer when something fails, in our kinds.

use sd_backend::{hinted, with_hint};
use sd_core::{Error, ErrorKind};
use zookeeper_client as zk;

/// A ZooKeeper error as ours.
pub(crate) fn translate(op: &'static str, error: zk::Error) -> Error {
    let hint = match error {
        zk::Error::NoAuth => {
            "the access control list of a node does not allow it: look at that list (getAcl), and at user, password and access here"
        }
        zk::Error::AuthFailed => {
            "the server refuses the login, or takes no client without one: set user and password, and look at auth_scheme"
        }
        _ => return Error::new(kind(&error), op).with_source(with_hint(error)),
    };
    Error::new(kind(&error), op).with_source(hinted(hint, error))
}

fn kind(error: &zk::Error) -> ErrorKind {
    match error {
        zk::Error::SessionExpired | zk::Error::ClientClosed => ErrorKind::LeaseLost,
        zk::Error::Timeout => ErrorKind::Timeout,
        zk::Error::NoNode => ErrorKind::NotFound,
        zk::Error::NodeExists | zk::Error::BadVersion | zk::Error::NotEmpty => ErrorKind::Conflict,
        zk::Error::NoAuth | zk::Error::AuthFailed | zk::Error::InvalidAcl => ErrorKind::Denied,
        zk::Error::BadArguments(_) => ErrorKind::InvalidInput,
        zk::Error::UnmarshalError { .. } => ErrorKind::InvalidData,
        zk::Error::QuotaExceeded | zk::Error::Throttled => {
            ErrorKind::RateLimited { retry_after: None }
        }
        zk::Error::Unimplemented
        | zk::Error::MarshallingError
        | zk::Error::NoChildrenForEphemerals
        | zk::Error::ReconfigDisabled
        | zk::Error::UnexpectedErrorCode(_) => ErrorKind::Rejected,
        // Whatever else it is, the request itself was not at fault.
        _ => ErrorKind::Unavailable,
    }
}

/// Whether a client is of no use any more, although it reports no end: what drove it is gone.
pub(crate) fn is_from_dead_client(error: &zk::Error) -> bool {
    matches!(error, zk::Error::UnexpectedError(text)
        if text.starts_with("expect error state") || text.starts_with("BUG: "))
}

/// For readers, who have no session to lose: the next read has another one.
pub(crate) fn for_readers(error: Error) -> Error {
    if error.kind() == ErrorKind::LeaseLost {
        return Error::new(ErrorKind::Unavailable, error.op()).with_source(error);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_zookeeper_have_the_kinds_that_lead_to_the_right_next_step() {
        for (error, kind) in [
            (zk::Error::ConnectionLoss, ErrorKind::Unavailable),
            (zk::Error::NoHosts, ErrorKind::Unavailable),
            (zk::Error::SessionExpired, ErrorKind::LeaseLost),
            (zk::Error::NoNode, ErrorKind::NotFound),
            (zk::Error::BadVersion, ErrorKind::Conflict),
            (zk::Error::NoAuth, ErrorKind::Denied),
            (zk::Error::Unimplemented, ErrorKind::Rejected),
            (
                zk::Error::Throttled,
                ErrorKind::RateLimited { retry_after: None },
            ),
        ] {
            let text = error.to_string();
            let ours = translate("zk: test", error);
            assert_eq!(ours.kind(), kind, "{text}");
            assert!(ours.report().to_string().contains(&text));
        }
        let lost = translate("zk: test", zk::Error::SessionExpired);
        assert_eq!(for_readers(lost).kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn a_client_whose_runtime_has_ended_is_known_as_dead() {
        for text in [
            "expect error state, got SyncConnected",
            "BUG: Create2 expect response, but got none",
        ] {
            assert!(is_from_dead_client(&zk::Error::UnexpectedError(
                text.to_owned()
            )));
        }
        let other = "recv response with xid 7 but no pending request";
        assert!(!is_from_dead_client(&zk::Error::UnexpectedError(
            other.to_owned()
        )));
    }
}
