//! Where tasks live, and their timers.

use tokio::time::{Instant, sleep_until};

use crate::error::{Error, Result};

/// The runtime to spawn a task on.
pub(crate) fn runtime(op: &'static str) -> Result<tokio::runtime::Handle> {
    tokio::runtime::Handle::try_current().map_err(|_| {
        Error::invalid_input(
            op,
            "must be called inside a tokio runtime: its task runs there",
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
