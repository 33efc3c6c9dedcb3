//! Where tasks live, and their timers.

use tokio::time::{Instant, sleep_until};

use crate::error::{Error, Result};

/// The runtime that this is called in: for a task, or for the timers of what follows.
pub(crate) fn runtime(op: &'static str) -> Result<tokio::runtime::Handle> {
    tokio::runtime::Handle::try_current().map_err(|_| {
        Error::invalid_input(
            op,
            "must be called inside a tokio runtime: tasks and timers run there",
        )
    })
}

/// Returns at `at`; never if there is no such time.
pub(crate) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
