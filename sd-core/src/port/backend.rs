//! What a registry URL opens: one server or cluster, with its ports.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{ErrorKind, Result};
use crate::port::elector::AnyElector;
use crate::port::instancer::Instancer;
use crate::port::operator::Operator;
use crate::port::registrar::Registrar;

/// One server or cluster, reached over one connection, with many services. A backend crate implements this; a
/// [`Registry`](crate::Registry) is built on it.
#[async_trait]
pub trait Backend: Instancer + Any {
    /// A short constant name for logs and metrics, for instance `"etcd"`.
    fn name(&self) -> &'static str;

    /// Asks the server something cheap that any reader may ask, to find out whether it can be reached and lets this client in.
    /// By default [`services`](Instancer::services); a source that cannot list services has answered.
    ///
    /// # Errors
    /// Why the server did not answer, or refused.
    async fn check(&self) -> Result<()> {
        match self.services().await {
            Err(error) if error.kind() != ErrorKind::Unsupported => Err(error),
            _ => Ok(()),
        }
    }

    /// The writing port; `None` for a source that can only be read.
    fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>>;

    /// The operators' port. `None`, the default, for a source that has no place for it.
    fn operator(self: Arc<Self>) -> Option<Arc<dyn Operator>> {
        None
    }

    /// The ownership port, apart from the others: see [`Elector`](crate::Elector). `None` where there are no elections.
    fn elector(self: Arc<Self>) -> Option<AnyElector>;

    /// Ends the session, sockets and tasks. Idempotent. Later calls answer [`Closed`](crate::ErrorKind::Closed).
    ///
    /// # Errors
    /// When the server could not be told. Everything local is ended nevertheless.
    async fn close(&self) -> Result<()>;
}
