//! The ports of a server while they serve.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use http::{Request, Response};
use sd_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tonic_health::pb::health_server::HealthServer;
use tower::Layer;
use tower_service::Service;
use tracing::warn;

use crate::cut::Cuttable;
use crate::server::health::Health;
use crate::server::services::Services;

const OP: &str = "serve";

/// How long accepting pauses after it failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Ended = Result<(), tonic::transport::Error>;

/// One port, ready to serve.
pub(crate) struct Port {
    /// Of its gRPC services.
    pub(crate) names: Vec<&'static str>,
    serve: Box<dyn FnOnce(Health, Signals) -> BoxFuture<'static, Ended> + Send>,
}

/// What ends a port.
#[derive(Clone)]
struct Signals {
    /// No more connections; calls in flight finish.
    stop: CancellationToken,
    /// Everything ends at once.
    cut: CancellationToken,
}

impl Port {
    pub(crate) fn new<S, IO, L, B>(incoming: S, services: Services<L>) -> Self
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
        let Services {
            transport,
            mut routes,
            names,
            max_pending_resets,
        } = services;
        let mut transport =
            transport.http2_max_pending_accept_reset_streams(Some(max_pending_resets));
        let serve = move |health, signals: Signals| {
            // Asked last: a health service of the user's comes first.
            let health = Routes::new(HealthServer::new(health));
            let router = std::mem::take(routes.axum_router_mut());
            let router = router.fallback_service(health);
            let cut = signals.cut.clone();
            let incoming =
                incoming.map(move |accepted| accepted.map(|io| Cuttable::new(io, cut.clone())));
            async move {
                let running = transport
                    .add_routes(router.into())
                    .serve_with_incoming_shutdown(incoming, signals.stop.cancelled_owned());
                tokio::select! {
                    ended = running => ended,
                    () = signals.cut.cancelled() => Ok(()),
                }
            }
            .boxed()
        };
        Self {
            names,
            serve: Box::new(serve),
        }
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// What a listener accepts.
pub(crate) fn accepted(
    listener: TcpListener,
) -> impl Stream<Item = io::Result<tokio::net::TcpStream>> + Send + 'static {
    TcpListenerStream::new(listener).then(|accepted| async {
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
    })
}

/// The running ports. Dropping it cuts all connections.
pub(crate) struct Serving {
    ports: JoinSet<Ended>,
    stop: CancellationToken,
    _cut: DropGuard,
}

impl Serving {
    pub(crate) fn start(ports: Vec<Port>, health: &Health) -> Self {
        let signals = Signals {
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        let serve = |port: Port| (port.serve)(health.clone(), signals.clone());
        Self {
            ports: ports.into_iter().map(serve).collect(),
            stop: signals.stop,
            _cut: signals.cut.drop_guard(),
        }
    }

    /// Waits until a port ends that was not told to. Cancel-safe.
    pub(crate) async fn ended(&mut self) -> Error {
        let failed = match self.ports.join_next().await {
            Some(ended) => failure(ended),
            None => None,
        };
        failed.unwrap_or_else(|| {
            Error::new(ErrorKind::Unavailable, OP).because("a listener ended before the shutdown")
        })
    }

    /// Takes no more connections and lets calls in flight finish; cuts what is left after `limit`.
    pub(crate) async fn stop(mut self, limit: Duration) -> Result<()> {
        self.stop.cancel();
        let stopping = async {
            let mut first = None;
            while let Some(ended) = self.ports.join_next().await {
                first = first.or_else(|| failure(ended));
            }
            first.map_or(Ok(()), Err)
        };
        timeout(limit, stopping).await.unwrap_or_else(|_| {
            warn!("calls in flight did not finish in time: their connections are cut");
            Ok(())
        })
    }
}

fn failure(ended: Result<Ended, JoinError>) -> Option<Error> {
    let error = Error::new(ErrorKind::Unavailable, OP);
    match ended {
        Ok(Ok(())) => None,
        Ok(Err(transport)) => Some(error.with_source(transport)),
        Err(panicked) => Some(error.with_source(panicked)),
    }
}
