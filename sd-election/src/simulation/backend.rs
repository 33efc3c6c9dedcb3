//! What a node's registry is made of: elections and nothing else.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use async_trait::async_trait;
use sd_core::port::AnyElector;
use sd_core::{
    Backend, Error, ErrorKind, Instancer, Registrar, Registry, Result, ServiceName, Snapshot,
    Watcher,
};
use tokio::runtime::Handle;

use super::server::SimulatedElector;

#[derive(Debug)]
pub(super) struct SimulatedBackend(pub(super) Arc<SimulatedElector>);

#[async_trait]
impl Backend for SimulatedBackend {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>> {
        None
    }

    fn elector(self: Arc<Self>) -> Option<AnyElector> {
        Some(AnyElector::Strict(Arc::clone(&self.0) as _))
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Instancer for SimulatedBackend {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        Err(no_services())
    }

    async fn list(&self, _: &ServiceName) -> Result<Snapshot> {
        Err(no_services())
    }

    async fn watch(&self, _: &ServiceName, _: Option<&Snapshot>) -> Result<Box<dyn Watcher>> {
        Err(no_services())
    }
}

fn no_services() -> Error {
    Error::new(ErrorKind::Unsupported, "simulate services")
}

/// Closes a registry. What limits that is a timer of tokio's, which stands still: nothing drives the runtime `idle`.
pub(super) async fn close(registry: Registry, idle: Handle) {
    let mut closed = pin!(registry.close());
    let closed = poll_fn(|cx| {
        let _entered = idle.enter();
        closed.as_mut().poll(cx)
    });
    // A simulated backend closes without fail.
    drop(closed.await);
}
