//! One server, or several of which one is the primary.

use std::sync::Arc;

use sd_core::{Endpoint, Error, ErrorKind, Result};
use tokio::time::timeout;

use crate::client::connection::{Dialer, Link, Purpose, no_primary};
use crate::client::topology::recheck::{Recheck, WITHIN};
use crate::client::topology::rotation::Rotation;

/// The servers that are named.
#[derive(Debug)]
pub(crate) struct Standalone {
    named: Vec<Endpoint>,
    dialer: Arc<Dialer>,
    role: Role,
    rotation: Rotation,
    recheck: Recheck,
}

/// Which of several servers are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Primary,
    /// Any of them, for what may be a little old.
    Any,
}

impl Standalone {
    pub(crate) fn new(named: Vec<Endpoint>, role: Role, dialer: Arc<Dialer>) -> Self {
        Self {
            named,
            dialer,
            role,
            rotation: Rotation::default(),
            recheck: Recheck::default(),
        }
    }

    /// Connects to the first of them that has the role.
    pub(crate) async fn open(&self, op: &'static str, purpose: Purpose) -> Result<Link> {
        let mut failed: Vec<Error> = Vec::new();
        for turn in self.rotation.turns(&self.named) {
            match self.dialer.dial(op, turn.server(), purpose.clone()).await {
                Ok(link) if link.is_primary() || self.role == Role::Any => {
                    turn.went_well();
                    self.recheck.done();
                    return Ok(link);
                }
                Ok(_) => failed.push(no_primary(op, turn.server())),
                Err(error) => failed.push(error),
            }
        }
        Err(none_of(op, failed))
    }

    /// Whether the primary is wanted, and this server says that it is a replica now, so that another one may be. Asks it now and then. A replica answers those
    /// who only read, so that they would not notice.
    pub(crate) async fn has_left(&self, op: &'static str, link: &Link) -> bool {
        if self.role == Role::Any || self.named.len() < 2 || !self.recheck.is_due() {
            return false;
        }
        matches!(timeout(WITHIN, link.says_primary(op)).await, Ok(Ok(false)))
    }

    /// This one is tried first the next time.
    pub(crate) fn prefer(&self, server: &Endpoint) {
        self.rotation.prefer(&self.named, server);
    }

    /// Another one may be the primary now: it is tried first the next time.
    pub(crate) fn doubt(&self, server: &Endpoint) {
        self.rotation.leave(&self.named, server);
    }
}

/// What each of several servers said, of which none could be used.
pub(super) fn none_of(op: &'static str, mut failed: Vec<Error>) -> Error {
    // One that refuses us says more than one that is not there.
    let is_refusal = |error: &Error| !sd_backend::is_unreachable(error);
    if failed.len() == 1 || failed.iter().any(is_refusal) {
        let at = failed.iter().position(is_refusal).unwrap_or_default();
        return failed.swap_remove(at);
    }
    let all_late = failed
        .iter()
        .all(|error| error.kind() == ErrorKind::Timeout);
    let kind = if all_late && !failed.is_empty() {
        ErrorKind::Timeout
    } else {
        ErrorKind::Unavailable
    };
    let said = failed.iter().map(cause).collect::<Vec<_>>();
    Error::new(kind, op).because(said.join("; "))
}

fn cause(error: &Error) -> String {
    let mut said = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        said.push(error.to_string());
        cause = error.source();
    }
    said.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_failures_a_refusal_counts_and_else_all_are_told() {
        let failed = |kind, why: &str| Error::new(kind, "test").because(why);
        let down = || failed(ErrorKind::Unavailable, "one is down");
        let late = || failed(ErrorKind::Timeout, "two is late");
        let denied = || failed(ErrorKind::Denied, "three refuses");
        let error = none_of("test", vec![down(), denied(), late()]);
        assert_eq!(error.kind(), ErrorKind::Denied);
        let error = none_of("test", vec![down(), late()]);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let report = error.report().to_string();
        assert!(report.contains("one is down; two is late"), "{report}");
        assert_eq!(
            none_of("test", vec![late(), late()]).kind(),
            ErrorKind::Timeout
        );
        assert_eq!(none_of("test", vec![late()]).kind(), ErrorKind::Timeout);
        assert_eq!(none_of("test", Vec::new()).kind(), ErrorKind::Unavailable);
    }
}
