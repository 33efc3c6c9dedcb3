//! How it stands between a process and its agent.

use std::time::SystemTime;

/// How it stands between a process and its agent, as one moment has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Whether the agent's stream is there.
    pub connected: bool,
    /// Whether the agent has accepted, over this connection, each service that is to be registered.
    pub registered: bool,
    /// Each service.
    pub services: Vec<ServiceStatus>,
    /// The service that was registered last, or failed to be.
    pub last_service_name: String,
    /// Its port.
    pub last_service_port: u16,
    /// The name of the last event.
    pub last_event_type: String,
    /// Its id.
    pub last_event_id: String,
    /// When the agent said it, or else when it came.
    pub last_event_at: Option<SystemTime>,
    /// When the last connection began, or its services were registered last.
    pub last_connected_at: Option<SystemTime>,
    /// When the last connection ended.
    pub last_disconnected_at: Option<SystemTime>,
    /// When the last heartbeat came.
    pub last_heartbeat_at: Option<SystemTime>,
    /// How many heartbeats came.
    pub heartbeat_count: u64,
    /// How many connections have ended, or could not begin.
    pub disconnect_count: u64,
    /// How many registrations the agent has accepted.
    pub register_replay_count: u64,
    /// How many it has not.
    pub register_replay_failure_count: u64,
    /// The [kind](super::AgentError::kind) of the last error.
    pub last_error_kind: String,
    /// The last error.
    pub last_error: String,
    /// When it happened.
    pub last_error_at: Option<SystemTime>,
}

/// One service of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// The port that the process listens on for it.
    pub port: u16,
    /// Whether the agent has accepted it as it is now, over this connection.
    pub registered: bool,
    /// Whether it wants no more calls.
    pub draining: bool,
    /// Whether it is to be taken out of the registry.
    pub leaving: bool,
    /// Why the last attempt to register, drain or deregister it failed, if it did.
    pub error: Option<String>,
}
