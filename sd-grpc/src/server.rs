//! The server's side of discovery: serve, become healthy, register; at the end unready, drain, deregister, stop.
//!
//! The order keeps calls from failing. A server registers only when it answers, and keeps answering for a while after it
//! became unready.

use std::future::Future;
use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use sd_core::{Error, ErrorKind, Instance, RegistrationGuard, RegistrationPhase, Registry, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

use crate::cut::Cuttable;

const OP: &str = "serve";

/// How long a server keeps answering after it became unready, by default: 5 s.
pub const DEFAULT_DRAIN: Duration = Duration::from_secs(5);

/// How long calls in flight may take after the drain, by default: 10 s.
pub const DEFAULT_STOP_WITHIN: Duration = Duration::from_secs(10);

/// How long accepting pauses after it failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves gRPC with `grpc.health.v1` and keeps an instance registered meanwhile.
#[derive(Debug)]
pub struct Server {
    registry: Registry,
    instance: Instance,
    transport: tonic::transport::Server,
    ttl: Option<Duration>,
    in_background: bool,
    drain: Duration,
    stop_within: Duration,
}

impl Server {
    /// Creates a server that registers `instance` at `registry`. Clients dial the instance's endpoint; see
    /// [`sd_core::advertised_address`].
    pub fn new(registry: &Registry, instance: Instance) -> Self {
        Self {
            registry: registry.clone(),
            instance,
            transport: tonic::transport::Server::builder(),
            ttl: None,
            in_background: false,
            drain: DEFAULT_DRAIN,
            stop_within: DEFAULT_STOP_WITHIN,
        }
    }

    /// Sets tonic's own settings: TLS, windows, limits, keep-alive.
    #[must_use]
    pub fn transport(mut self, transport: tonic::transport::Server) -> Self {
        self.transport = transport;
        self
    }

    /// Sets the time-to-live of the registration. Default: the registry's
    /// [`RegistrationConfig::ttl`](sd_core::RegistrationConfig::ttl).
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Serves even while the registry is down, and registers once it is up.
    #[must_use]
    pub fn in_background(mut self) -> Self {
        self.in_background = true;
        self
    }

    /// Sets how long the server keeps answering after it became unready. Allow as long as clients take to notice. Default
    /// 5 s.
    #[must_use]
    pub fn drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }

    /// Sets how long calls in flight may take once the server stops; then it cuts their connections. Default 10 s.
    #[must_use]
    pub fn stop_within(mut self, stop_within: Duration) -> Self {
        self.stop_within = stop_within;
        self
    }

    /// Serves `routes` on a TCP listener until `shutdown` completes. See [`serve_incoming`](Self::serve_incoming).
    ///
    /// # Errors
    /// As [`serve_incoming`](Self::serve_incoming).
    ///
    /// # Cancel safety
    /// As [`serve_incoming`](Self::serve_incoming).
    pub async fn serve(
        self,
        routes: Routes,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<()> {
        let incoming = TcpListenerStream::new(listener).then(|accepted| async {
            match &accepted {
                // A socket that refuses it is merely slower.
                Ok(stream) => drop(stream.set_nodelay(true)),
                Err(error) => {
                    // Out of file descriptors, most likely. The transport would try again at once, and say nothing.
                    warn!(%error, "could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
            accepted
        });
        self.serve_incoming(routes, incoming, shutdown).await
    }

    /// Serves `routes` on incoming connections until `shutdown` completes. Health becomes `SERVING`, for the whole server and for
    /// the service's name, before the instance is registered. At shutdown, health becomes `NOT_SERVING` and the instance
    /// unready; the server drains, then deregisters; calls in flight finish or are cut.
    ///
    /// # Errors
    /// The registry's error if registration failed, or if the registry did not confirm the deregistration (the server has
    /// still stopped in order); `Unavailable` if the transport failed.
    ///
    /// # Cancel safety
    /// Dropping the future cuts every connection at once and deregisters in the background.
    pub async fn serve_incoming<S, IO>(
        self,
        routes: Routes,
        incoming: S,
        shutdown: impl Future<Output = ()>,
    ) -> Result<()>
    where
        S: Stream<Item = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let service = self.instance.service().clone();
        let (health, health_service) = tonic_health::server::health_reporter();
        let health = Health {
            reporter: health,
            service: service.as_str().to_owned(),
        };
        health.set(ServingStatus::Serving).await;
        let mut serving =
            Serving::start(self.transport, routes.add_service(health_service), incoming);

        tokio::pin!(shutdown);
        let registering = register(&self.registry, self.instance, self.ttl, self.in_background);
        tokio::pin!(registering);
        let guard = tokio::select! {
            registered = &mut registering => registered,
            ended = serving.ended() => return Err(ended),
            () = &mut shutdown => {
                // Hardly any client knows this server: there is nothing to drain. But what was begun is undone before we
                // return, if the registry answers in time.
                let begun = timeout(self.stop_within, registering).await;
                let withdrawn = match begun {
                    Ok(Ok(guard)) => guard.deregister().await,
                    _ => Ok(()),
                };
                health.clear().await;
                serving.stop(self.stop_within).await?;
                return withdrawn;
            }
        };
        let guard = match guard {
            Ok(guard) => guard,
            Err(error) => {
                health.clear().await;
                // The reason why it could not register matters more than how the stop went.
                let _ = serving.stop(self.stop_within).await;
                return Err(error);
            }
        };
        info!(service = service.as_str(), "serving");

        tokio::select! {
            () = shutdown => {}
            ended = serving.ended() => {
                // Nothing answers any more: withdraw at once.
                let _ = guard.deregister().await;
                return Err(ended);
            }
        }
        info!(service = service.as_str(), "stopping");
        health.set(ServingStatus::NotServing).await;
        // No client calls a server that the registry does not know: there is nothing to drain.
        let withdrawn = match guard.phase() {
            RegistrationPhase::Registering => guard.deregister().await,
            _ => guard.drain(self.drain).await,
        };
        if let Err(error) = &withdrawn {
            warn!(error = %error.report(), "could not deregister");
        }
        health.clear().await;
        serving.stop(self.stop_within).await?;
        withdrawn
    }
}

async fn register(
    registry: &Registry,
    instance: Instance,
    ttl: Option<Duration>,
    in_background: bool,
) -> Result<RegistrationGuard> {
    let mut register = registry.register(instance);
    if let Some(ttl) = ttl {
        register = register.ttl(ttl);
    }
    if in_background {
        register.in_background()
    } else {
        register.await
    }
}

/// What `grpc.health.v1` says of the whole server and of the service.
struct Health {
    reporter: HealthReporter,
    service: String,
}

impl Health {
    async fn set(&self, status: ServingStatus) {
        for name in ["", &self.service] {
            self.reporter.set_service_status(name, status).await;
        }
    }

    /// Ends the streams of those who watch, which would keep their connections from closing.
    async fn clear(mut self) {
        for name in ["", &self.service] {
            self.reporter.clear_service_status(name).await;
        }
    }
}

/// The running transport. Dropping it cuts all connections.
struct Serving {
    transport: JoinHandle<Result<(), tonic::transport::Error>>,
    stop: Option<oneshot::Sender<()>>,
    cut: DropGuard,
}

impl Serving {
    fn start<S, IO>(mut server: tonic::transport::Server, routes: Routes, incoming: S) -> Self
    where
        S: Stream<Item = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let cut = CancellationToken::new();
        let connection_cut = cut.clone();
        let incoming = incoming
            .map(move |accepted| accepted.map(|io| Cuttable::new(io, connection_cut.clone())));
        let (stop, stopped) = oneshot::channel();
        let serve_cut = cut.clone();
        let transport = tokio::spawn(async move {
            let signal = async {
                // A dropped sender means that the owner is gone: stop as well.
                let _ = stopped.await;
            };
            let running = server
                .add_routes(routes)
                .serve_with_incoming_shutdown(incoming, signal);
            tokio::select! {
                ended = running => ended,
                () = serve_cut.cancelled() => Ok(()),
            }
        });
        Self {
            transport,
            stop: Some(stop),
            cut: cut.drop_guard(),
        }
    }

    /// Waits for an end that was not requested. Cancel-safe.
    async fn ended(&mut self) -> Error {
        let error = Error::new(ErrorKind::Unavailable, OP);
        match (&mut self.transport).await {
            Ok(Ok(())) => error.because("the listener ended before the shutdown"),
            Ok(Err(transport)) => error.with_source(transport),
            Err(panicked) => error.with_source(panicked),
        }
    }

    /// Takes no more connections and lets calls in flight finish; cuts what is left after `limit`.
    async fn stop(mut self, limit: Duration) -> Result<()> {
        drop(self.stop.take());
        let Ok(stopped) = timeout(limit, &mut self.transport).await else {
            warn!("calls in flight did not finish in time: their connections are cut");
            drop(self.cut);
            return Ok(());
        };
        match stopped {
            Ok(Ok(())) => Ok(()),
            Ok(Err(transport)) => {
                Err(Error::new(ErrorKind::Unavailable, OP).with_source(transport))
            }
            Err(panicked) => Err(Error::new(ErrorKind::Unavailable, OP).with_source(panicked)),
        }
    }
}
