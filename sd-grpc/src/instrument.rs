//! The metrics that this crate emits through the `metrics` facade. Names and labels are stable.
//!
//! A channel creates its metrics when it is built: install the recorder first.

use metrics::{Counter, Gauge, counter, gauge};
use sd_core::ServiceName;

use crate::subchannel::{EndpointState, StateCounts};

/// Counter, label `service`: calls started.
pub const CALLS: &str = "sd_grpc_calls_total";
/// Counter, label `service`: calls that ended without a response from a server.
pub const CALLS_FAILED: &str = "sd_grpc_calls_failed_total";
/// Histogram in seconds, by OpenTelemetry's conventions for RPC: how long calls took, retries and the response included. A call that its
/// caller dropped has the status `CANCELLED`. Labels: `server.address` is the service, `rpc.system.name` is `grpc`,
/// `rpc.response.status_code`, `error.type` where that is not `OK`, `rpc.method`, and `endpoint`, the address of the last attempt, if
/// there was one. The last two are bounded by [`ChannelConfig::call_labels`](crate::ChannelConfig::call_labels).
pub const CALL_DURATION: &str = "rpc.client.call.duration";
/// Counter, labels `service` and `reason` (`never_sent`, `refused`, `retried`): attempts that were followed by
/// another attempt.
pub const SENT_AGAIN: &str = "sd_grpc_calls_sent_again_total";
/// Gauge, label `service`: calls that wait for an endpoint.
pub const CALLS_WAITING: &str = "sd_grpc_calls_waiting";
/// Gauge, labels `service` and `state`: endpoints in this state.
pub const ENDPOINTS: &str = "sd_grpc_endpoints";
/// Counter, labels `service` and `outcome` (`connected`, `failed`): attempts to connect.
pub const CONNECTS: &str = "sd_grpc_connects_total";

/// The target of spans, at level DEBUG: `call`, with OpenTelemetry's fields for RPC, and in it `attempt`, with `endpoint` and `number`.
/// A call's span ends with its response. The parent is the caller's current span. Nothing of it is sent to servers.
pub const SPANS: &str = "sd_grpc::call";

/// For [`CALLS_WAITING`].
pub(crate) fn calls_waiting(service: &ServiceName) -> Gauge {
    gauge!(CALLS_WAITING, "service" => service.as_str().to_owned())
}

/// Why an attempt was followed by another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    NeverSent,
    Refused,
    Retried,
}

/// The counters of the call path.
#[derive(Debug)]
pub(crate) struct CallMetrics {
    calls: Counter,
    failed: Counter,
    never_sent: Counter,
    refused: Counter,
    retried: Counter,
}

impl CallMetrics {
    pub(crate) fn new(service: &ServiceName) -> Self {
        let service = service.as_str();
        let again =
            |reason| counter!(SENT_AGAIN, "service" => service.to_owned(), "reason" => reason);
        Self {
            calls: counter!(CALLS, "service" => service.to_owned()),
            failed: counter!(CALLS_FAILED, "service" => service.to_owned()),
            never_sent: again("never_sent"),
            refused: again("refused"),
            retried: again("retried"),
        }
    }

    pub(crate) fn begun(&self) {
        self.calls.increment(1);
    }

    pub(crate) fn failed(&self) {
        self.failed.increment(1);
    }

    pub(crate) fn sent_again(&self, why: Again) {
        match why {
            Again::NeverSent => self.never_sent.increment(1),
            Again::Refused => self.refused.increment(1),
            Again::Retried => self.retried.increment(1),
        }
    }
}

/// The gauges and counters of the driver.
#[derive(Debug)]
pub(crate) struct DriverMetrics {
    connected: Counter,
    failed: Counter,
    states: [(EndpointState, Gauge); EndpointState::ALL.len()],
}

impl DriverMetrics {
    pub(crate) fn new(service: &ServiceName) -> Self {
        let service = service.as_str();
        let connects =
            |outcome| counter!(CONNECTS, "service" => service.to_owned(), "outcome" => outcome);
        Self {
            connected: connects("connected"),
            failed: connects("failed"),
            states: EndpointState::ALL.map(|state| {
                let service = service.to_owned();
                (
                    state,
                    gauge!(ENDPOINTS, "service" => service, "state" => state.as_str()),
                )
            }),
        }
    }

    pub(crate) fn connected(&self) {
        self.connected.increment(1);
    }

    pub(crate) fn connect_failed(&self) {
        self.failed.increment(1);
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "gauges are floating point; sets stay far below 2^52"
    )]
    pub(crate) fn endpoints(&self, counts: &StateCounts) {
        for (state, gauge) in &self.states {
            gauge.set(counts.of(*state) as f64);
        }
    }
}
