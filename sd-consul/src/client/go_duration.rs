//! Durations as Consul reads them.

use std::time::Duration;

/// A duration as Go reads it.
pub(crate) fn go_duration(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
