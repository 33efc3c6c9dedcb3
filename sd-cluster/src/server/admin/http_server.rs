//! HTTP for operators, within bounds.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::access::Admin;
use super::api::answer;
use crate::server::ConfigService;
use crate::server::instrument::operator_refused;

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
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut is_full = false;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a connection of an operator cannot be accepted");
                sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            operator_refused();
            // Once for all that are refused in a row.
            if !is_full {
                warn!("connections of operators are refused: there are too many");
            }
            is_full = true;
            continue;
        };
        is_full = false;
        let (service, admin, stop) = (service.clone(), admin.clone(), stop.clone());
        tasks.spawn(async move {
            let connection = http(stream, &stop, |request| {
                answer(&service, &admin, peer.ip(), request)
            });
            if timeout(CONNECTION_WITHIN, connection).await.is_err() {
                debug!("a connection of an operator took too long");
            }
            drop(place);
        });
    }
}

async fn http<F>(
    stream: TcpStream,
    stop: &CancellationToken,
    answer: impl Fn(hyper::Request<hyper::body::Incoming>) -> F,
) where
    F: Future<Output = hyper::Response<http_body_util::Full<bytes::Bytes>>>,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
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
