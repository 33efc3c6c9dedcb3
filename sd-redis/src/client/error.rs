//! What Redis and its client answer when something fails, in our kinds.

use std::time::Duration;

use redis::{ErrorKind as Cause, RedisError, ServerError};
use sd_backend::{hinted, other_server, with_hint};
use sd_core::{Error, ErrorKind};

/// What should answer.
pub(crate) const EXPECTED: &str = "Redis or Valkey";

/// What to do when the server takes nothing any more.
pub(crate) const FULL: &str = "the server has no memory left for writes: raise its maxmemory, remove other data, or let a \
                               maxmemory-policy remove it";
const OUTDATED: &str =
    "the server is too old: Redis 7.0 or Valkey 7.2 is needed, or a later one of either";

/// What the first word of an answer means, and what to do. What is not here is `Rejected`.
const CODES: [(&str, ErrorKind, &str); 19] = [
    (
        "READONLY",
        ErrorKind::Unavailable,
        "the server is a replica now: its primary is looked for",
    ),
    ("OOM", ErrorKind::Unavailable, FULL),
    (
        "MISCONF",
        ErrorKind::Unavailable,
        "the server refuses writes because it cannot save its data: look at its disk and its log",
    ),
    (
        "NOREPLICAS",
        ErrorKind::Unavailable,
        "the server refuses writes because it has too few replicas: look at them, and at min-replicas-to-write",
    ),
    (
        "LOADING",
        ErrorKind::Unavailable,
        "the server reads its data from disk after a start",
    ),
    (
        "CLUSTERDOWN",
        ErrorKind::Unavailable,
        "the Cluster misses a node: look at CLUSTER INFO",
    ),
    (
        "MASTERDOWN",
        ErrorKind::Unavailable,
        "the server is a replica that has lost its primary",
    ),
    (
        "TRYAGAIN",
        ErrorKind::Unavailable,
        "keys are being moved to another node",
    ),
    ("MOVED", ErrorKind::Unavailable, "keys are on another node"),
    (
        "ASK",
        ErrorKind::Unavailable,
        "keys are being moved to another node",
    ),
    (
        "BUSY",
        ErrorKind::Unavailable,
        "the server is busy with a script that runs for too long",
    ),
    (
        "UNKILLABLE",
        ErrorKind::Unavailable,
        "the server is busy with a script that runs for too long",
    ),
    (
        "NOSCRIPT",
        ErrorKind::Unavailable,
        "the server loses its scripts again and again",
    ),
    (
        "NOPERM",
        ErrorKind::Denied,
        "the user lacks a right: the README of sd-redis lists those that are needed",
    ),
    (
        "NOAUTH",
        ErrorKind::Denied,
        "the server asks for a login: set user and password",
    ),
    (
        "WRONGPASS",
        ErrorKind::Denied,
        "the server refuses the login: look at user and password",
    ),
    (
        "WRONGTYPE",
        ErrorKind::InvalidData,
        "another program keeps something else under one of our keys: look with TYPE, and remove it",
    ),
    (
        "NOTBUSY",
        ErrorKind::Unavailable,
        "the server is about to end a script",
    ),
    ("NOPROTO", ErrorKind::Rejected, OUTDATED),
];

/// What in an answer that begins with `ERR` means what.
const TEXTS: [(&str, ErrorKind, &str); 7] = [
    (
        "max number of clients reached",
        ErrorKind::Unavailable,
        "the server takes no more connections: raise its maxclients",
    ),
    // A right that a script lacks.
    (
        "The user executing the script",
        ErrorKind::Denied,
        "the user lacks a right: the README of sd-redis lists those that are needed",
    ),
    (
        "ACL failure in script",
        ErrorKind::Denied,
        "the user lacks a right: the README of sd-redis lists those that are needed",
    ),
    (
        "DB index is out of range",
        ErrorKind::Rejected,
        "the server has no database of this number: look at database, and at the server's databases",
    ),
    (
        "cluster support disabled",
        ErrorKind::Rejected,
        "the server is no node of a Cluster: write redis:// in place of redis+cluster://",
    ),
    (
        "SELECT is not allowed in cluster mode",
        ErrorKind::Rejected,
        "the server is a node of a Cluster: write redis+cluster:// in place of redis://, and no database",
    ),
    ("unknown command", ErrorKind::Rejected, OUTDATED),
];

/// What follows in the server's text repeats what was sent, which may be a password.
const REPEATED: &str = ", with args beginning with";

/// An error of the client crate as ours.
pub(crate) fn translate(op: &'static str, error: RedisError) -> Error {
    let cause = error.kind();
    match cause {
        Cause::Server(_) | Cause::Extension => match ServerError::try_from(error) {
            Ok(error) => refused(op, &error),
            Err(error) => Error::new(ErrorKind::Unavailable, op).because(error.to_string()),
        },
        Cause::Io => Error::new(ErrorKind::Unavailable, op).with_source(with_hint(error)),
        Cause::AuthenticationFailed => {
            let text = without_repeated(&error.to_string());
            Error::new(ErrorKind::Denied, op).with_source(hinted(hint("WRONGPASS"), text))
        }
        Cause::RESP3NotSupported => {
            let text = without_repeated(&error.to_string());
            Error::new(ErrorKind::Rejected, op).with_source(hinted(OUTDATED, text))
        }
        Cause::Parse | Cause::UnexpectedReturnType => {
            // Its text repeats what was read.
            let text = "its answer is not of Redis's protocol";
            Error::new(ErrorKind::Rejected, op).with_source(other_server(EXPECTED, text))
        }
        _ => Error::new(ErrorKind::Unavailable, op).because(error.to_string()),
    }
}

/// What a server answered in place of what it was asked for, as ours.
pub(crate) fn refused(op: &'static str, error: &ServerError) -> Error {
    let details = without_repeated(error.details().unwrap_or_default());
    let text = format!("{} {details}", error.code());
    let by_code = CODES.iter().find(|(code, ..)| *code == error.code());
    let by_text = || TEXTS.iter().find(|(part, ..)| details.contains(part));
    match by_code.or_else(by_text) {
        Some((_, kind, hint)) => Error::new(*kind, op).with_source(hinted(hint, text)),
        None => Error::new(ErrorKind::Rejected, op).because(text),
    }
}

/// Whether an answer says that the primary is, or may be, another server.
pub(crate) fn is_no_primary(error: &ServerError) -> bool {
    use redis::ServerErrorKind::{ClusterDown, MasterDown, ReadOnly};
    matches!(error.kind(), Some(ReadOnly | MasterDown | ClusterDown))
}

/// Whether the server has refused a write because it has no memory left.
pub(crate) fn is_full(error: &Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.to_string() == FULL {
            return true;
        }
        cause = error.source();
    }
    false
}

/// An answer that no server of this kind gives.
pub(crate) fn odd_answer(op: &'static str) -> Error {
    let text = "its answer has another form than was asked for";
    Error::new(ErrorKind::Rejected, op).with_source(other_server(EXPECTED, text))
}

/// The server did not answer a request in time.
pub(crate) fn no_answer(op: &'static str, limit: Duration) -> Error {
    Error::new(ErrorKind::Timeout, op)
        .because(format!("the server did not answer within {limit:?}"))
}

/// Whether a connection that fails like this is of no use any more, so that the request may have another outcome on a new one.
pub(crate) fn is_broken(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        Cause::Io | Cause::Parse | Cause::AuthenticationFailed
    )
}

fn hint(code: &str) -> &'static str {
    let known = CODES.iter().find(|(known, ..)| *known == code);
    known.map_or("", |(_, _, hint)| hint)
}

fn without_repeated(text: &str) -> String {
    let kept = text.split(REPEATED).next().unwrap_or_default();
    kept.to_owned()
}

#[cfg(test)]
mod tests {
    use redis::{Value, parse_redis_value};

    use super::*;

    fn answered(line: &str) -> Error {
        let value = parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        let Value::ServerError(error) = value else {
            panic!("no error: {value:?}")
        };
        let both = [
            refused("redis: test", &error),
            translate("redis: test", error.into()),
        ];
        let [error, translated] = both;
        assert_eq!(error.report().to_string(), translated.report().to_string());
        error
    }

    #[test]
    fn the_answers_of_redis_have_the_kinds_that_lead_to_the_right_next_step() {
        for (line, kind) in [
            (
                "READONLY You can't write against a read only replica.",
                ErrorKind::Unavailable,
            ),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                ErrorKind::Unavailable,
            ),
            (
                "LOADING Redis is loading the dataset in memory",
                ErrorKind::Unavailable,
            ),
            ("CLUSTERDOWN Hash slot not served", ErrorKind::Unavailable),
            (
                "MASTERDOWN Link with MASTER is down",
                ErrorKind::Unavailable,
            ),
            (
                "MISCONF Redis is configured to save RDB snapshots",
                ErrorKind::Unavailable,
            ),
            (
                "NOREPLICAS Not enough good replicas to write.",
                ErrorKind::Unavailable,
            ),
            ("MOVED 3999 127.0.0.1:6381", ErrorKind::Unavailable),
            ("ASK 3999 127.0.0.1:6381", ErrorKind::Unavailable),
            (
                "TRYAGAIN Multiple keys request during rehashing of slot",
                ErrorKind::Unavailable,
            ),
            ("NOSCRIPT No matching script.", ErrorKind::Unavailable),
            (
                "BUSY Redis is busy running a script.",
                ErrorKind::Unavailable,
            ),
            (
                "NOPERM this user has no permissions to run the 'eval' command",
                ErrorKind::Denied,
            ),
            ("NOAUTH Authentication required.", ErrorKind::Denied),
            (
                "WRONGPASS invalid username-password pair",
                ErrorKind::Denied,
            ),
            (
                "ERR The user executing the script can't run this command",
                ErrorKind::Denied,
            ),
            (
                "ERR ACL failure in script: User u has no permissions",
                ErrorKind::Denied,
            ),
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value",
                ErrorKind::InvalidData,
            ),
            ("ERR max number of clients reached", ErrorKind::Unavailable),
            ("ERR DB index is out of range", ErrorKind::Rejected),
            (
                "ERR This instance has cluster support disabled",
                ErrorKind::Rejected,
            ),
            (
                "CROSSSLOT Keys in request don't hash to the same slot",
                ErrorKind::Rejected,
            ),
            ("ERR syntax error", ErrorKind::Rejected),
        ] {
            let error = answered(line);
            assert_eq!(error.kind(), kind, "{line}");
            assert!(error.report().to_string().contains(line), "{line}");
            assert_eq!(is_full(&error), line.starts_with("OOM "), "{line}");
        }
    }

    #[test]
    fn what_a_server_repeats_of_a_request_is_not_told() {
        let error = answered(
            "ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'u' 'sesame'",
        );
        let report = error.report().to_string();
        assert!(
            !report.contains("sesame") && report.contains("too old"),
            "{report}"
        );
    }

    #[test]
    fn a_connection_that_ended_is_unavailable_and_one_that_speaks_something_else_is_rejected() {
        let ended = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(is_broken(&ended));
        assert_eq!(translate("test", ended).kind(), ErrorKind::Unavailable);
        let other = parse_redis_value(b"HTTP/1.1 400 Bad Request\r\n").unwrap_err();
        assert!(is_broken(&other));
        let error = translate("test", other);
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert!(sd_backend::is_other_server(&error));
    }
}
