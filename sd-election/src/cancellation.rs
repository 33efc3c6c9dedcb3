//! When a campaign or an observation is given up: its owner cancels it, or the registry is closed.

use std::future::pending;

use sd_core::port::Closing;
use tokio_util::sync::CancellationToken;

/// Returns when the registry is to be closed. Never if there is none.
pub(crate) async fn close_requested(closing: Option<&Closing>) {
    match closing {
        Some(closing) => closing.requested().await,
        None => pending().await,
    }
}

/// Returns when the campaign or the observation is to end.
pub(crate) async fn cancelled(cancel: &CancellationToken, closing: Option<&Closing>) {
    tokio::select! {
        biased;
        () = cancel.cancelled() => {}
        () = close_requested(closing) => {}
    }
}
