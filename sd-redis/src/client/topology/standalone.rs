//! One server, or several of which one is the primary.

use std::sync::atomic::{AtomicUsize, Ordering};

use sd_core::{Endpoint, Error, ErrorKind, Result};

use crate::client::connection::{Dialer, Link, Purpose, no_primary};

/// The servers that are named.
#[derive(Debug)]
pub(crate) struct Standalone {
    named: Vec<Endpoint>,
    /// Which one is tried first.
    first: AtomicUsize,
}

impl Standalone {
    pub(crate) fn new(named: Vec<Endpoint>) -> Self {
        let first = AtomicUsize::new(0);
        Self { named, first }
    }

    /// Connects to the first of them that says that it is the primary.
    pub(crate) async fn open(
        &self,
        op: &'static str,
        dialer: &Dialer,
        purpose: Purpose,
    ) -> Result<Link> {
        let first = self.first.load(Ordering::Relaxed);
        let mut failed: Vec<Error> = Vec::new();
        for turn in 0..self.named.len() {
            let at = first.wrapping_add(turn) % self.named.len();
            let Some(address) = self.named.get(at) else {
                continue;
            };
            match dialer.dial(op, address, purpose.clone()).await {
                Ok(link) if link.is_primary() => {
                    self.first.store(at, Ordering::Relaxed);
                    return Ok(link);
                }
                Ok(_) => failed.push(no_primary(op, address)),
                Err(error) => failed.push(error),
            }
        }
        Err(none_of(op, failed))
    }

    /// Another one may be the primary now: it is tried first the next time.
    pub(crate) fn doubt(&self) {
        self.first.fetch_add(1, Ordering::Relaxed);
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
