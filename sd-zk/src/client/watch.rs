//! What a watch tells.

use sd_core::{Error, ErrorKind, Result, panics};
use zookeeper_client::{self as zk, EventType};

/// Returns what a watch tells, once it does.
///
/// # Errors
/// The session is over.
pub(crate) async fn fired(op: &'static str, watch: zk::OneshotWatcher) -> Result<zk::WatchedEvent> {
    // The client crate panics if what drives the session is gone without a word.
    let event = panics::caught(op, async { Ok(watch.changed().await) }).await?;
    if event.event_type == EventType::Session {
        return Err(Error::new(ErrorKind::Unavailable, op)
            .because(format!("the session is over: {}", event.session_state)));
    }
    Ok(event)
}
