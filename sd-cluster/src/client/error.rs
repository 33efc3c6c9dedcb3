//! What a config service answers when something fails, in our kinds.

use std::fmt;

use http::StatusCode;
use sd_backend::{hinted, with_hint};
use sd_core::{Endpoint, Error, ErrorKind, Printable, brief};
use tracing::warn;

use crate::etp::upgrade::UpgradeError;
use crate::protocol::events::OK;

/// The error of a connection that does not become a WebSocket.
pub(crate) fn of_upgrade(op: &'static str, endpoint: &Endpoint, error: UpgradeError) -> Error {
    const OTHER: &str = "what listens there is no isp-config-service, or a proxy between does not pass WebSocket on";
    let (kind, why) = match error {
        UpgradeError::Io(error) => {
            return Error::new(ErrorKind::Unavailable, op).with_source(At::new(endpoint, error));
        }
        UpgradeError::NotHttp(why) | UpgradeError::Disagrees(why) => (
            ErrorKind::InvalidData,
            format!("{endpoint}: {why}: {OTHER}"),
        ),
        UpgradeError::Status(status, place) => {
            let place = place.map(|place| format!(" and points to {}", brief(Printable(&place))));
            let place = place.unwrap_or_default();
            (
                kind_of(status),
                format!("{endpoint} answers {status}{place}: {OTHER}"),
            )
        }
    };
    Error::new(kind, op).because(why)
}

fn kind_of(status: StatusCode) -> ErrorKind {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
        StatusCode::TOO_MANY_REQUESTS => ErrorKind::RateLimited { retry_after: None },
        _ if status.is_server_error() => ErrorKind::Unavailable,
        _ => ErrorKind::Rejected,
    }
}

/// A failure at an endpoint.
#[derive(Debug)]
pub(crate) struct At {
    endpoint: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl At {
    pub(crate) fn new(endpoint: &Endpoint, error: std::io::Error) -> Self {
        Self {
            endpoint: endpoint.to_string(),
            source: with_hint(error),
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.endpoint)
    }
}

impl std::error::Error for At {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.source.as_ref())
    }
}

/// Which answers to an event are success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckRule {
    /// One word alone. An empty answer comes from a service that does not know the event.
    OnlyOk,
    /// All of them, as for modules in Go.
    Any,
}

impl AckRule {
    /// Checks the answer to an event.
    ///
    /// # Errors
    /// `Rejected` with what the service says, without what it may repeat of the event.
    pub(crate) fn check(self, op: &'static str, event: &str, answer: &[u8]) -> Result<(), Error> {
        if answer == OK {
            return Ok(());
        }
        let said = shown(answer);
        if self == Self::Any {
            warn!(
                event,
                said, "an answer of the service is not ok, and is taken for it"
            );
            return Ok(());
        }
        let rejected = Error::new(ErrorKind::Rejected, op);
        if answer.is_empty() {
            let hint =
                "it does not know this event: is it an isp-config-service of version 3 or later?";
            return Err(
                rejected.with_source(hinted(hint, format!("{event} was answered with nothing")))
            );
        }
        Err(rejected.because(format!("the service refuses {event}: {said}")))
    }
}

/// What the service says, as far as it may be logged: it may repeat what was sent, which may hold secrets.
pub(crate) fn shown(said: &[u8]) -> String {
    /// The service goes on with what it could not read.
    const REPEATS: &str = "unmarshal event data";
    let said = String::from_utf8_lossy(said);
    match said.split_once(REPEATS) {
        Some((before, _)) => brief(Printable(&format!("{before}{REPEATS}"))),
        None => brief(Printable(&said)),
    }
}

#[cfg(test)]
mod tests {
    use sd_core::retry::Retry;

    use super::*;

    #[test]
    fn only_one_word_is_success_and_nothing_of_the_event_is_repeated() {
        let checked =
            |answer: &str| AckRule::OnlyOk.check("test", "MODULE:READY", answer.as_bytes());
        checked("ok").unwrap();
        for (answer, told) in [
            ("", "was answered with nothing"),
            ("OK", "refuses MODULE:READY: OK"),
            ("ok\n", "ok\\n"),
            (
                "unmarshal event data: readString: found sesame in {\"p\":\"sesame\"}",
                "refuses MODULE:READY: unmarshal event data",
            ),
            (
                "handle onModuleConfigSchema: render config: undefined variables: [a, b]",
                "undefined variables: [a, b]",
            ),
        ] {
            let error = checked(answer).unwrap_err();
            let report = error.report().to_string();
            assert!(report.contains(told), "{report}");
            assert!(!report.contains("sesame"), "{report}");
            assert_ne!(error.kind().retry(), Retry::Never);
            let lenient = AckRule::Any.check("test", "MODULE:READY", answer.as_bytes());
            assert!(lenient.is_ok(), "{answer}");
        }
        let long = checked(&"x".repeat(10_000))
            .unwrap_err()
            .report()
            .to_string();
        assert!(long.len() < 500, "{long}");
    }

    #[test]
    fn what_a_server_answers_in_place_of_a_websocket_can_be_tried_again() {
        let endpoint: Endpoint = "h:1".parse().unwrap();
        for (status, kind) in [
            (307, ErrorKind::Rejected),
            (403, ErrorKind::Denied),
            (404, ErrorKind::Rejected),
            (503, ErrorKind::Unavailable),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = UpgradeError::Status(status, Some("/else\n".to_owned()));
            let error = of_upgrade("test", &endpoint, error);
            assert_eq!(error.kind(), kind);
            let report = error.report().to_string();
            assert!(
                report.contains("h:1 answers") && report.contains("/else\\n"),
                "{report}"
            );
            assert_ne!(error.kind().retry(), Retry::Never);
        }
    }
}
