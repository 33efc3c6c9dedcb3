//! The server's side of discovery: serve, become healthy, register; at the end unready, drain, deregister, stop.
//!
//! The order keeps calls from failing. A server registers only when it answers, and keeps answering for a while after it
//! became unready.

mod health;
mod lifecycle;
mod port;
mod running;
mod services;

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use sd_core::{Instance, Registry, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tower::Layer;
use tower_service::Service;

use self::lifecycle::{Lifecycle, Registration};
use self::port::{Port, accepted};
pub use self::running::RunningServer;
pub use self::services::{DEFAULT_MAX_PENDING_RESETS, Services};

/// How long a server keeps answering after it became unready, by default: 5 s.
pub const DEFAULT_DRAIN: Duration = Duration::from_secs(5);

/// How long calls in flight may take after the drain, by default: 10 s.
pub const DEFAULT_STOP_WITHIN: Duration = Duration::from_secs(10);

/// Serves gRPC with `grpc.health.v1` on one or several ports, and keeps one or several instances registered meanwhile.
///
/// Health knows the name of every gRPC service that was [added](Services::add_service), the instances' services, and `""` for the whole
/// server.
#[derive(Debug)]
#[must_use = "a server does nothing until it is started"]
pub struct Server(Lifecycle);

impl Server {
    /// Creates a server that registers `instance` at `registry`. Clients dial the instance's endpoint; see
    /// [`sd_core::advertised_address`].
    pub fn new(registry: &Registry, instance: Instance) -> Self {
        Self(Lifecycle {
            registration: Registration {
                registry: registry.clone(),
                instances: vec![instance],
                ttl: None,
                in_background: false,
            },
            ports: Vec::new(),
            drain: DEFAULT_DRAIN,
            stop_within: DEFAULT_STOP_WITHIN,
        })
    }

    /// Registers another instance with the others: of another service, or at another port.
    pub fn also(mut self, instance: Instance) -> Self {
        self.0.registration.instances.push(instance);
        self
    }

    /// Serves `services` on a TCP listener. Each call adds a port; a server needs one.
    pub fn listen<L, B>(self, listener: TcpListener, services: Services<L>) -> Self
    where
        L: Layer<Routes> + Clone + Send + 'static,
        L::Service: Service<
                Request<Body>,
                Response = Response<B>,
                Future: Send,
                Error: Into<StdError> + Send,
            > + Clone
            + Send
            + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<StdError>> + Send + 'static,
    {
        self.listen_incoming(accepted(listener), services)
    }

    /// Serves `services` on incoming connections, of a Unix socket for example.
    pub fn listen_incoming<S, IO, L, B>(mut self, incoming: S, services: Services<L>) -> Self
    where
        S: Stream<Item = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        L: Layer<Routes> + Clone + Send + 'static,
        L::Service: Service<
                Request<Body>,
                Response = Response<B>,
                Future: Send,
                Error: Into<StdError> + Send,
            > + Clone
            + Send
            + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<StdError>> + Send + 'static,
    {
        self.0.ports.push(Port::new(incoming, services));
        self
    }

    /// Sets the time-to-live of the registrations. Default: the registry's
    /// [`RegistrationConfig::ttl`](sd_core::RegistrationConfig::ttl).
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.0.registration.ttl = Some(ttl);
        self
    }

    /// Serves even while the registry is down, and registers once it is up.
    pub fn in_background(mut self) -> Self {
        self.0.registration.in_background = true;
        self
    }

    /// Sets how long the server keeps answering after it became unready. Allow as long as clients take to notice. Default
    /// 5 s.
    pub fn drain(mut self, drain: Duration) -> Self {
        self.0.drain = drain;
        self
    }

    /// Sets how long calls in flight may take once the server stops; then it cuts their connections. Default 10 s.
    pub fn stop_within(mut self, stop_within: Duration) -> Self {
        self.0.stop_within = stop_within;
        self
    }

    /// Starts to serve, in a task of its own, and then to register. Health becomes `SERVING` before the instances are registered.
    /// [`RunningServer::registered`] waits until clients can find the server.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(self) -> RunningServer {
        RunningServer::start(self.0)
    }

    /// Serves until `shutdown` completes, then ends as [`RunningServer::shutdown`] does.
    ///
    /// # Errors
    /// The registry's error if registration failed, or if the registry did not confirm the deregistration (the server has
    /// still stopped in order); `Unavailable` if a port failed; `InvalidInput` if there is no port.
    ///
    /// # Cancel safety
    /// Dropping the future cuts every connection at once and deregisters in the background.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let running = self.start();
        tokio::select! {
            () = shutdown => running.shutdown().await,
            ended = running.ended() => ended,
        }
    }
}
