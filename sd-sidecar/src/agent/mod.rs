//! What a process talks to the local agent with.
//!
//! ```no_run
//! use std::time::Duration;
//! use sd_sidecar::agent::{self, Agent, AgentConfig, App, RunConfig, Service, ServiceNode, ServiceOptions};
//!
//! # async fn serve(stop: tokio_util::sync::CancellationToken) -> std::io::Result<()> { stop.cancelled().await; Ok(()) }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let options = ServiceOptions {
//!     app: App { id: "a-1".into(), name: "auth-app".into(), env: "prod".into(), version: "v1.2.0".into(), ..App::default() },
//!     service: Service { name: "auth".into(), ..Service::default() },
//!     protocol: "grpc".into(),
//!     server_port: 9090,
//!     ..ServiceOptions::default()
//! };
//! let node = ServiceNode::new(options, agent::methods_of("acme.auth.v1.AuthService", &["Login", "Watch"]));
//! let config = AgentConfig::new("unix:/run/sd-agent.sock").with_grace_period(Duration::from_secs(20));
//! let agent = Agent::new(node, config)?;
//! agent.configure_run(RunConfig::new().with_serve(serve));
//! agent.run(async { /* wait for SIGTERM */ }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//!  EventSource ──events──► Runner ──► Controller ──requests──► Client ──► agent
//!  (WatchSource)                     what is wanted,         (ApiClient)
//!                                    what is accepted
//! ```
//!
//! A [`Controller`] holds what is wanted, and what the agent has accepted over this connection. A [`Runner`] has it ask for the
//! difference whenever a connection begins, something else is wanted, or a pause after a failure is over. Each part may be used alone,
//! and one of your own may take the place of [`ApiClient`] and [`WatchSource`]: [`DirectClient`] and [`DirectSource`] keep services
//! registered at a registry without an agent.
//!
//! # What happens when
//!
//! | | then |
//! |---|---|
//! | the agent is down | connecting is tried again after 1 s, then after longer and random pauses of at most 30 s; errors go to the handler |
//! | the agent is restarted | all services are registered over the new connection |
//! | the agent does not accept a service | it is asked again after random pauses of at most 30 s, for as long as the connection lasts |
//! | the agent hangs, or the connection is half open | after 15 s without a heartbeat the connection counts as lost |
//! | the agent's certificate is refused | nothing but the handshake is sent over that connection, and so no token; it is tried again as if the agent were down, with what the files hold then |
//! | the agent cannot be watched at all | the process goes on serving, unless the [policy](OnLifecycleFailure) is another |
//! | the process ends | drain, wait, end of its work, no more watching, deregistration: each has its time, and all errors are told |

mod address;
#[expect(clippy::module_inception, reason = "named after what it defines")]
mod agent;
mod api_client;
mod asking;
mod config;
mod controller;
mod descriptor_set;
mod direct;
mod error;
mod error_thread;
mod event;
mod exit;
#[cfg(test)]
mod fakes;
mod http;
mod manifest;
mod methods;
mod parts;
mod runner;
mod service;
mod slots;
mod status;
mod watch_source;

pub use agent::{Agent, Lifecycle};
pub use api_client::ApiClient;
pub use config::{
    AgentConfig, DEFAULT_BASE_URL, DEFAULT_RECONNECT_INTERVAL, DEFAULT_REQUEST_TIMEOUT,
    DEFAULT_WATCH_PATH, OnLifecycleFailure, RunConfig,
};
pub use controller::Controller;
pub use direct::{DirectClient, DirectSource};
pub use error::{AgentError, AgentRunError, ApiFailure, LifecycleRunError, Result, Stage};
pub use event::{ConnectionEvent, EventKind};
pub use http::HttpClient;
pub use manifest::GatewayManifest;
pub use methods::{grpc_methods, methods_of, unary_grpc_methods};
pub use parts::{Client, ConnectionEvents, ErrorHandler, EventSource};
pub use runner::Runner;
pub use service::ServiceHandle;
pub use status::{ServiceStatus, Status};
pub use watch_source::WatchSource;

#[cfg(feature = "tls")]
pub use crate::tls::ClientTls;
pub use crate::wire::dialect::Dialect;
pub use crate::wire::{App, HttpRoute, Kernel, Service, ServiceNode, ServiceOptions};
