//! What the reference system's agent replies to a registration, a drain and a deregistration.

use std::collections::BTreeSet;

use serde::Serialize;

use super::dialect::Register;

/// A registration as the reference system shows it. Times are RFC 3339 text, of [`rfc3339`](super::rfc3339).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LocalService {
    /// The request as it was accepted.
    pub request: Register,
    /// The id of the registration.
    pub instance_id: String,
    /// The agent, the same over its runs.
    pub agent_id: String,
    /// The run of the agent.
    pub agent_run_id: String,
    /// Where the service is dialled, without its port.
    pub address: String,
    /// Its zone.
    pub zone: String,
    /// What its calls are routed by.
    pub route_prefixes: BTreeSet<String>,
    /// Where its routes are documented.
    pub route_config_ref: String,
    /// The check that the agent keeps alive.
    pub lease_check_id: String,
    /// `Init`, `Registered`, `Serving`, `Draining` or `Deregistered`.
    pub state: String,
    /// When it was registered.
    pub registered_at: String,
    /// When it was last changed or confirmed.
    pub updated_at: String,
    /// When a drain ends, while it lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_deadline: Option<String>,
}
