//! The local agent: keeps the registrations of processes on its host true, and tells them what is registered.
//!
//! ```text
//!  processes ── HTTP ──► api ──► registrations ──── a task for each ──► sd-core's guard ──► registry
//!                         │           │    ▲                │
//!                         │           │    └── checks ◄─────┘
//!                         │           └──► store: the state on disk
//!                         └──► subscriptions of sd-core: what is registered, as answers and streams
//! ```
//!
//! [`registrations`] is the only way to change what is registered. [`store`] has what the next agent needs to go on. [`lifecycle`] tells all
//! parts where the agent stands.

pub mod agent;
pub mod api;
pub mod config;
mod connection;
mod control;
mod gate;
pub mod lifecycle;
mod limits;
mod listener;
pub mod log;
pub mod metrics;
mod observer;
mod preparing;
mod refusal;
pub mod registrations;
pub mod security;
mod server;
pub mod store;
mod tls;
pub mod write_deadline;
