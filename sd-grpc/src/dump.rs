//! What a channel holds and why, for people and tests.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sd_core::{Incarnation, InstanceId, ServiceName};
use serde::Serialize;

use crate::shared::Shared;
use crate::subchannel::{EndpointState, Subchannel};

/// A snapshot of a channel. Serializes to JSON.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ChannelDump {
    /// The service's name.
    pub service: ServiceName,
    /// Whether calls find an endpoint, and if not, the reason.
    pub condition: String,
    /// Calls started since the channel was built.
    pub calls: u64,
    /// Calls that ended without a response from a server.
    pub failed: u64,
    /// Attempts that were followed by another attempt.
    pub sent_again: u64,
    /// Calls that wait for an endpoint now.
    pub waiting: usize,
    /// The endpoints of the service, sorted by id, then those that are draining.
    pub endpoints: Vec<EndpointDump>,
}

/// A snapshot of an endpoint.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EndpointDump {
    /// The instance's id.
    pub id: InstanceId,
    /// The run of the instance.
    pub incarnation: Incarnation,
    /// The address.
    pub address: Arc<str>,
    /// The state.
    pub state: EndpointState,
    /// Whether calls go to it: it is ready, and its tier and zone are the ones in use.
    pub picked: bool,
    /// How long the endpoint has been in this state, in seconds.
    pub for_seconds: f64,
    /// Why the endpoint is not connected.
    pub reason: Option<Arc<str>>,
    /// How many connections the endpoint has.
    pub connections: usize,
    /// Calls in flight.
    pub in_flight: u32,
    /// Attempts sent to the endpoint.
    pub calls: u64,
    /// Attempts that failed here and were followed by another attempt.
    pub sent_again: u64,
    /// Attempts that got no answer, or were answered with UNAVAILABLE or `RESOURCE_EXHAUSTED`.
    pub errors: u64,
}

impl ChannelDump {
    pub(crate) fn new(shared: &Shared) -> Self {
        let set = shared.published.set().load();
        let totals = &shared.totals;
        Self {
            service: shared.service.clone(),
            condition: set.condition.to_string(),
            calls: totals.calls.load(Ordering::Relaxed),
            failed: totals.failed.load(Ordering::Relaxed),
            sent_again: totals.sent_again.load(Ordering::Relaxed),
            waiting: shared.published.waiting(),
            endpoints: set
                .members
                .iter()
                .chain(set.leaving.iter())
                .enumerate()
                .map(|(index, subchannel)| {
                    EndpointDump::new(subchannel, set.choice.contains(index))
                })
                .collect(),
        }
    }
}

impl EndpointDump {
    fn new(subchannel: &Subchannel, picked: bool) -> Self {
        let target = subchannel.target();
        let standing = subchannel.standing();
        let connections = subchannel.connections();
        let (calls, sent_again, errors) = target.counters().read();
        Self {
            id: target.id().clone(),
            incarnation: target.incarnation(),
            address: target.label(),
            state: standing.state,
            picked,
            for_seconds: standing.since.elapsed().as_secs_f64(),
            reason: standing.reason,
            connections: connections.len(),
            in_flight: connections
                .iter()
                .map(|connection| connection.calls())
                .sum(),
            calls,
            sent_again,
            errors,
        }
    }
}
