//! What the tests of the agent share.

mod agent;
pub(crate) mod bodies;
#[cfg(target_os = "linux")]
mod certificates;
mod http_client;
#[cfg(target_os = "linux")]
pub(crate) mod program;
pub(crate) mod sets;

pub(crate) use self::agent::{CALLER, TestAgent, TestConfig};
#[cfg(target_os = "linux")]
pub(crate) use self::certificates::Certificates;
pub(crate) use self::http_client::{Frame, HttpClient, Reply, SseStream};
