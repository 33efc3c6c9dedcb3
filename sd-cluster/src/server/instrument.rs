//! The metrics that the service emits through the `metrics` facade. Names and labels are stable.

use metrics::{counter, gauge};

/// Gauge: connections of modules.
pub const CONNECTIONS: &str = "sd_cluster_server_connections";
/// Counter, label `what`: connections of modules (`connection`) and of operators (`operator`) that found no place; connections that left
/// theirs to another one, because they had asked for nothing yet (`idle`); connections with which TLS could not be agreed on (`tls`), and
/// those that were ended because the memory of their messages was needed (`memory`); and events of modules that were answered with an error
/// (`event`).
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

/// What was refused, for [`REFUSED`].
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Connection,
    Operator,
    Idle,
    Tls,
    Memory,
    Event,
}

pub(super) fn refused(what: What) {
    let what = match what {
        What::Connection => "connection",
        What::Operator => "operator",
        What::Idle => "idle",
        What::Tls => "tls",
        What::Memory => "memory",
        What::Event => "event",
    };
    counter!(REFUSED, "what" => what).increment(1);
}
