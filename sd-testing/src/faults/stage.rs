//! The setting of the fault cases.

use std::net::SocketAddr;
use std::time::Duration;

use sd_core::{
    ErrorKind, Incarnation, Instance, RegistrationEvent, RegistrationGuard, Registry, ServiceName,
    Subscription,
};

use super::FaultFixture;
use crate::{TcpProxy, event, is_live_with, is_stale, until};

/// One instance registered, and a reader that has seen it.
#[derive(Debug)]
pub struct Stage {
    /// A service that no other test uses.
    pub service: ServiceName,
    /// The client of both the owner and the reader.
    pub registry: Registry,
    /// The instance.
    pub guard: RegistrationGuard,
    /// The reader.
    pub seen: Subscription,
}

impl Stage {
    /// Registers with this time-to-live, and waits until the reader sees the instance.
    pub async fn open(registry: Registry, ttl: Duration) -> Self {
        let service = unused_service();
        // In the background, where a first attempt that is too slow on a busy machine is followed by another one.
        let mut guard = registry
            .register(instance(&service, 1))
            .ttl(ttl)
            .in_background()
            .unwrap();
        event(&mut guard, "registered").await;
        let mut seen = registry.subscribe(&service).unwrap();
        until(&mut seen, "there", is_live_with(1)).await;
        Self {
            service,
            registry,
            guard,
            seen,
        }
    }

    /// Waits until the reader is stale, and returns the kind of the reason. The reader keeps the last set.
    pub async fn goes_stale(&mut self) -> ErrorKind {
        let state = until(&mut self.seen, "stale", is_stale).await;
        assert_eq!(state.snapshot().len(), 1);
        let error = state.status().error().unwrap();
        assert!(!error.report().to_string().is_empty());
        error.kind()
    }

    /// Waits until the reader is live again by itself.
    pub async fn is_live(&mut self) {
        until(&mut self.seen, "live", is_live_with(1)).await;
    }

    /// Waits until the owner gets the event `name`. Returns all events since the last call.
    pub async fn told(&mut self, name: &str) -> Vec<RegistrationEvent> {
        event(&mut self.guard, name).await
    }
}

pub(super) fn unused_service() -> ServiceName {
    ServiceName::new(format!("faults-{}", Incarnation::random())).unwrap()
}

pub(super) fn instance(service: &ServiceName, port: u16) -> Instance {
    Instance::new(service, format!("10.0.0.1:{port}")).unwrap()
}

pub(super) fn registry(fixture: &impl FaultFixture, address: SocketAddr) -> Registry {
    Registry::new(fixture.backend(address))
}

/// A proxy in front of the server, which can break connections.
pub(super) async fn proxy(fixture: &impl FaultFixture) -> TcpProxy {
    TcpProxy::start(fixture.address()).await.unwrap()
}
