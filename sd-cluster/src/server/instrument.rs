//! The metrics that the service emits through the `metrics` facade. Names and labels are stable.

use metrics::{counter, gauge};

/// Gauge: connections of modules.
pub const CONNECTIONS: &str = "sd_cluster_server_connections";
/// Counter, label `what` (`connection`, `operator`, `event`): connections of modules and of operators that found no place, and events of
/// modules that were answered with an error.
pub const REFUSED: &str = "sd_cluster_server_refused_total";

/// A connection that counts as long as this lives.
pub(super) struct Counted;

impl Counted {
    pub(super) fn begin() -> Self {
        gauge!(CONNECTIONS).increment(1);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        gauge!(CONNECTIONS).decrement(1);
    }
}

pub(super) fn connection_refused() {
    counter!(REFUSED, "what" => "connection").increment(1);
}

pub(super) fn operator_refused() {
    counter!(REFUSED, "what" => "operator").increment(1);
}

pub(super) fn event_refused() {
    counter!(REFUSED, "what" => "event").increment(1);
}
