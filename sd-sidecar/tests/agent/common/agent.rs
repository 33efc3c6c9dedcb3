//! The agent's API in this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::serve::Listener;
use sd_core::Registry;
use sd_core::memory::Memory;
use sd_sidecar::daemon::api::{ApiConfig, ApiState, router};
use sd_sidecar::daemon::lifecycle::Lifecycle;
use sd_sidecar::daemon::registrations::{Caller, Registrations, Settings};
use sd_sidecar::daemon::write_deadline::WriteDeadline;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::HttpClient;

/// Says in a request who asks, where no listener of the agent's finds that out.
pub(crate) const CALLER: &str = "test-caller";

/// How a [`TestAgent`] is started.
#[derive(Clone, Debug)]
pub(crate) struct TestConfig {
    pub(crate) api: ApiConfig,
    /// How long a reader may read nothing.
    pub(crate) write_deadline: Duration,
    /// How long a caller waits for the registry to confirm.
    pub(crate) confirm_within: Duration,
}

impl Default for TestConfig {
    fn default() -> Self {
        Self {
            api: ApiConfig::default(),
            write_deadline: Duration::from_secs(30),
            confirm_within: Duration::from_secs(5),
        }
    }
}

impl TestConfig {
    /// The default with other bounds and times of the API.
    pub(crate) fn with_api(change: impl FnOnce(&mut ApiConfig)) -> Self {
        let mut config = Self::default();
        change(&mut config.api);
        config
    }
}

/// An agent's API on a free loopback port. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct TestAgent {
    pub(crate) address: SocketAddr,
    pub(crate) registry: Registry,
    pub(crate) lifecycle: watch::Sender<Lifecycle>,
    server: JoinHandle<()>,
}

impl TestAgent {
    /// An agent at an embedded registry of its own.
    pub(crate) async fn start() -> Self {
        Self::start_at(Memory::new().connect(), TestConfig::default()).await
    }

    /// An agent at `registry`.
    pub(crate) async fn start_at(registry: Registry, config: TestConfig) -> Self {
        let mut settings = Settings::default();
        settings.advertised_host = Some("10.0.0.7".to_owned());
        settings.zone = Some("a".to_owned());
        settings.confirm_within = config.confirm_within;
        let registrations = Registrations::with_settings(registry.clone(), settings);
        let (lifecycle, told) = watch::channel(Lifecycle::Running);
        let state = ApiState::new(registrations, told, config.api);
        let api = router(state).layer(from_fn(say_who_asks));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Deadlines {
            listener,
            limit: config.write_deadline,
        };
        let server = tokio::spawn(async move { axum::serve(listener, api).await.unwrap() });
        Self {
            address,
            registry,
            lifecycle,
            server,
        }
    }

    /// A client of this agent.
    pub(crate) fn client(&self) -> HttpClient {
        HttpClient::new(self.address)
    }
}

impl Drop for TestAgent {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn say_who_asks(mut request: Request, next: Next) -> axum::response::Response {
    let caller = request.headers().get(CALLER);
    let caller = caller.map_or("anonymous", |name| name.to_str().unwrap());
    let caller = Caller(caller.into());
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// Accepts connections whose writes have a deadline.
struct Deadlines {
    listener: TcpListener,
    limit: Duration,
}

impl Listener for Deadlines {
    type Io = WriteDeadline<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        (WriteDeadline::new(stream, self.limit), peer)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
