//! What an agent's client is made of, where a part of one's own may take its place.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;

use super::error::{AgentError, Result};
use super::event::ConnectionEvent;
use crate::wire::ServiceNode;

/// Does what is asked of an agent, each request once. Retries are the caller's.
#[async_trait]
pub trait Client: Send + Sync + 'static {
    /// Registers a service, or says again that it is registered.
    ///
    /// # Errors
    /// When it is not registered, or not known to be.
    ///
    /// # Cancel safety
    /// After a dropped call it may or may not be registered. So it is with the other methods.
    async fn register(&self, node: &ServiceNode) -> Result<()>;

    /// Has others send it no more calls. Without `grace`, the agent decides how long that lasts.
    ///
    /// # Errors
    /// When others may still send calls.
    async fn drain(&self, node: &ServiceNode, grace: Option<Duration>) -> Result<()>;

    /// Takes it out of the registry.
    ///
    /// # Errors
    /// When it may still be there.
    async fn deregister(&self, node: &ServiceNode) -> Result<()>;
}

/// The events of a source. Dropping them ends what they come from.
pub type ConnectionEvents = Pin<Box<dyn Stream<Item = ConnectionEvent> + Send>>;

/// Tells when services must be registered: when a connection to the agent begins.
#[async_trait]
pub trait EventSource: Send + Sync + 'static {
    /// Begins to watch.
    ///
    /// # Errors
    /// What is wrong for good, such as an address that is none. All else is an event of the stream.
    async fn subscribe(&self) -> Result<ConnectionEvents>;
}

/// Hears of errors in the background, one after another. It may block: nothing waits for it. Of errors that come faster than it takes
/// them, it misses some.
pub type ErrorHandler = Arc<dyn Fn(&AgentError) + Send + Sync>;
