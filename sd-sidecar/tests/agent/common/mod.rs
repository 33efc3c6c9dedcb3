//! What the tests of the agent share.

mod agent;
pub(crate) mod bodies;
mod http_client;
#[cfg(target_os = "linux")]
pub(crate) mod program;
pub(crate) mod sets;

pub(crate) use self::agent::{CALLER, TestAgent, TestConfig};
pub(crate) use self::http_client::{Frame, HttpClient, Reply, SseStream};
