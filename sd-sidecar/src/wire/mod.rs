//! The bodies of the agent's protocol, as both of its ends use them.
//!
//! [`Declaration`] is what the agent's own requests hold. [`dialect`] reads what clients of the reference system send, four generations
//! of them, and [`ServiceNode`] writes it. [`LocalService`] and [`envelope`] are the replies, [`sse`] the frames of its streams.

mod check;
mod declaration;
pub mod dialect;
pub mod envelope;
mod go_duration;
mod go_json;
pub mod meta;
mod node;
mod reply;
pub mod sse;
mod time;

pub use check::{CheckKind, CheckSpec, CheckState};
#[cfg(feature = "checks")]
pub(crate) use check::{HttpTarget, endpoint, start_of_process};
pub use declaration::{AppInstance, Declaration};
pub use go_duration::{format_duration, parse_duration};
pub use node::{App, HttpRoute, Kernel, Service, ServiceNode, ServiceOptions};
pub use reply::LocalService;
#[cfg(feature = "daemon")]
pub(crate) use time::{in_hours, rfc3339_seconds};
pub use time::{parse_rfc3339, rfc3339};
