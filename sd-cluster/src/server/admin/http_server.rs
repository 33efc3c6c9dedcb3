//! HTTP for operators, within bounds.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::access::Admin;
use super::api::answer;
use crate::server::ConfigService;
use crate::server::instrument::{What, refused};
use crate::server::places::{Place, Places};
use crate::server::throttle::Throttle;

const MOST_CONNECTIONS: usize = 64;
/// How long a client may take for the head of a request, and rest between two.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection may last.
const CONNECTION_WITHIN: Duration = Duration::from_secs(60);
/// How long a request may go on when the service stops.
const STOP_WITHIN: Duration = Duration::from_secs(1);
const AFTER_FAILURE: Duration = Duration::from_millis(100);
const MOST_HEAD_BYTES: usize = 16 * 1024;

/// Accepts connections until the service stops. `service` holds the service without keeping it.
pub(in crate::server) async fn serve(
    listener: TcpListener,
    service: ConfigService,
    admin: Admin,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    // Operators are on one host, or behind one proxy: any of them may have all places.
    let places = Places::new(MOST_CONNECTIONS, MOST_CONNECTIONS);
    let (refusals, leaving) = (Throttle::default(), Throttle::default());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
            Err(error) => {
                warn!(%error, "a connection of an operator cannot be accepted");
                sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        let place = match places.take(peer) {
            Ok(place) => Arc::new(place),
            Err(why) => {
                refused(What::Operator);
                if let Some(times) = refusals.count() {
                    warn!(%peer, times, "a connection of an operator is refused: {why}");
                }
                continue;
            }
        };
        if place.is_taken_over {
            refused(What::Idle);
            if let Some(times) = leaving.count() {
                warn!(%peer, times, "places for operators are scarce: a connection that asks for nothing leaves its own");
            }
        }
        let (service, admin, stop) = (service.clone(), admin.clone(), stop.clone());
        tasks.spawn(async move {
            let connection = serve_one(stream, &stop, &place, &admin, |request| {
                answer(&service, &admin, peer, request)
            });
            tokio::select! {
                served = timeout(CONNECTION_WITHIN, connection) => if served.is_err() {
                    debug!("a connection of an operator took too long");
                },
                () = place.leave.cancelled() => {}
            }
        });
    }
}

/// Answers the requests of one connection, over TLS if the API has any.
async fn serve_one<F>(
    stream: TcpStream,
    stop: &CancellationToken,
    place: &Arc<Place>,
    admin: &Admin,
    answer: impl Fn(Request<Incoming>) -> F,
) where
    F: Future<Output = Response<Full<Bytes>>>,
{
    let Some(tls) = &admin.tls else {
        return http(stream, stop, place, answer).await;
    };
    let agreed = tokio::select! {
        () = stop.cancelled() => return,
        agreed = timeout(HEAD_WITHIN, tls.accept(stream)) => agreed,
    };
    match agreed {
        Ok(Ok(stream)) => Box::pin(http(stream, stop, place, answer)).await,
        Ok(Err(error)) => {
            refused(What::Tls);
            debug!(%error, "TLS cannot be agreed on with an operator");
        }
        Err(_) => refused(What::Tls),
    }
}

async fn http<S, F>(
    stream: S,
    stop: &CancellationToken,
    place: &Arc<Place>,
    answer: impl Fn(Request<Incoming>) -> F,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let service = service_fn(|request| {
        let busy = Busy::begin(place);
        let answer = answer(request);
        async move {
            let answer = answer.await;
            Ok::<_, Infallible>(answer.map(|body| Answering { body, _busy: busy }))
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(MOST_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match timeout(STOP_WITHIN, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection of an operator ended");
    }
}

/// A request that is answered: its connection keeps its place.
struct Busy(Arc<Place>);

impl Busy {
    fn begin(place: &Arc<Place>) -> Self {
        // Where another one has it already, this connection is about to end.
        place.keep();
        Self(Arc::clone(place))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.rest();
    }
}

/// The body of an answer, with which its request ends.
struct Answering {
    body: Full<Bytes>,
    _busy: Busy,
}

impl Body for Answering {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
