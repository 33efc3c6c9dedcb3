//! What an election entry says. Panics if it says something else than expected.

use std::time::Duration;

use sd_core::port::{Entry, Leader, LeaderFeed, LeaderWatcher, Predecessor, Standing};
use sd_core::{Error, ErrorKind, FencingToken};
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};

use super::LONG;

/// The standing that an entry reports at once.
///
/// # Panics
/// If the entry reports nothing within [`LONG`], or fails.
pub async fn now(entry: &dyn Entry) -> Standing {
    answered(timeout(LONG, entry.standing(None)).await)
}

/// The standing that an entry reports after `seen`.
///
/// # Panics
/// If the entry reports nothing within [`LONG`], or fails.
pub async fn after(entry: &dyn Entry, seen: &Standing) -> Standing {
    answered(timeout(LONG, entry.standing(Some(seen))).await)
}

/// The standing that an entry reports after `seen`, asked again while its server cannot be reached.
///
/// # Panics
/// If the entry reports nothing within [`LONG`], or fails in another way.
pub async fn told_at_last(entry: &dyn Entry, seen: &Standing) -> Standing {
    let asking = async {
        loop {
            match entry.standing(Some(seen)).await {
                Err(error)
                    if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) =>
                {
                    sleep(Duration::from_millis(10)).await;
                }
                told => return told,
            }
        }
    };
    answered(timeout(LONG, asking).await)
}

/// The token, and how the term before ended, of an entry that is first.
///
/// # Panics
/// If the entry is not first.
pub fn first(standing: Standing) -> (FencingToken, Predecessor) {
    match standing {
        Standing::First { token, before } => (token, before),
        other => panic!("not first: {other:?}"),
    }
}

/// Why an entry is gone.
///
/// # Panics
/// If the entry is not gone.
pub fn gone(standing: Standing) -> Error {
    match standing {
        Standing::Gone(error) => error,
        other => panic!("not gone: {other:?}"),
    }
}

/// The token of an entry that leads.
///
/// # Panics
/// If the entry does not lead.
pub async fn leads(entry: &dyn Entry) -> FencingToken {
    first(now(entry).await).0
}

/// The standing of an entry that waits.
///
/// # Panics
/// If the entry does not wait.
pub async fn waits(entry: &dyn Entry) -> Standing {
    let standing = now(entry).await;
    assert!(matches!(standing, Standing::Waiting { .. }), "{standing:?}");
    standing
}

/// The leader that a feed reports next.
///
/// # Panics
/// If the feed reports nothing within [`LONG`], or ends.
pub async fn leader_told(feed: &mut dyn LeaderWatcher) -> Option<Leader> {
    let telling = async {
        loop {
            if let LeaderFeed::Leader { leader, .. } = feed.next().await? {
                return Ok(leader);
            }
        }
    };
    answered(timeout(LONG, telling).await)
}

fn answered<T>(answer: Result<sd_core::Result<T>, Elapsed>) -> T {
    let answer = answer.unwrap_or_else(|_| panic!("not told within {LONG:?}"));
    answer.unwrap_or_else(|error| panic!("{}", error.report()))
}
