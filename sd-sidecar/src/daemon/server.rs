//! Connections: accepting them within bounds, TLS, and HTTP until the agent stops.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::{counter, gauge};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::config::Listen;
use super::gate::Gate;
use super::listener::{Accepted, Bound};
use super::security::Peer;
use super::write_deadline::WriteDeadline;

/// How long a client may take for its handshake, and for the head of a request. Also how long a connection may rest between two.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// How long a client may take nothing of what is sent to it.
const TAKE_WITHIN: Duration = Duration::from_secs(30);
/// The longest head of a request.
const MOST_HEAD_BYTES: usize = 16 * 1024;
const MOST_HEADERS: usize = 64;
/// Connections beyond the limit that are told so at the same time. Others are closed without a word.
const MOST_REFUSALS: usize = 64;
const REFUSE_WITHIN: Duration = Duration::from_secs(1);
/// Before accepting is tried again where the process may open no more files.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

const FULL: &str = r#"{"success":false,"code":"too_many_connections","message":"the agent has too many connections","error":"the agent has too many connections"}"#;

/// Serves all addresses of the agent. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    gate: Arc<Gate>,
    tasks: TaskTracker,
    /// No new connections, and no further requests on those that are there.
    stop: CancellationToken,
    /// The connections that are left end now.
    cut: CancellationToken,
    refusals: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn new(gate: Arc<Gate>) -> Self {
        Self {
            gate,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            refusals: Arc::default(),
        }
    }

    /// Accepts connections until [`stop`](Self::stop), on the runtime that this is called on.
    pub(crate) fn serve(&self, bound: Bound) {
        let server = self.clone();
        self.tasks.spawn(async move { server.accept(bound).await });
    }

    /// Ends all connections: those that answer a request go on for at most `within`.
    pub(crate) async fn stop(&self, within: Duration) {
        self.stop.cancel();
        self.tasks.close();
        if timeout(within, self.tasks.wait()).await.is_err() {
            warn!("connections are cut that did not end in time");
            self.cut.cancel();
            self.tasks.wait().await;
        }
    }

    async fn accept(&self, bound: Bound) {
        let open = Arc::new(AtomicUsize::new(0));
        let name: Arc<str> = bound.listen.to_string().into();
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = bound.accept() => accepted,
            };
            let accepted = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, listen = %name, "a connection cannot be accepted");
                    sleep(AFTER_FAILURE).await;
                    continue;
                }
            };
            let place = Place::take(&open, self.gate.settings().connections, &name);
            let server = self.clone();
            let is_tls = matches!(bound.listen, Listen::Tls(_));
            match (place, accepted) {
                (Some(place), accepted) => {
                    self.tasks.spawn(async move {
                        server.connection(accepted, is_tls).await;
                        drop(place);
                    });
                }
                (None, accepted) => self.refuse(accepted, is_tls),
            }
        }
    }

    async fn connection(&self, accepted: Accepted, is_tls: bool) {
        match accepted {
            Accepted::Unix(stream, user) => self.http(stream, Peer::User(user)).await,
            Accepted::Tcp(stream, peer) => {
                let ip = peer.ip().to_canonical();
                let peer = if ip.is_loopback() {
                    Peer::Loopback
                } else {
                    Peer::Remote(ip)
                };
                if !is_tls {
                    return self.http(stream, peer).await;
                }
                let Some(config) = self.gate.settings().tls.clone() else {
                    return;
                };
                let handshake = timeout(HEAD_WITHIN, TlsAcceptor::from(config).accept(stream));
                let shaken = tokio::select! {
                    () = self.stop.cancelled() => return,
                    shaken = handshake => shaken,
                };
                match shaken {
                    Ok(Ok(stream)) => self.http(stream, peer).await,
                    Ok(Err(error)) => debug!(%error, "a TLS handshake failed"),
                    Err(_) => debug!("a TLS handshake took too long"),
                }
            }
        }
    }

    async fn http(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send, peer: Peer) {
        let service = service_fn(move |request| {
            let gate = Arc::clone(&self.gate);
            async move { Ok::<_, Infallible>(gate.answer(peer, request).await) }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .max_buf_size(MOST_HEAD_BYTES)
                .max_headers(MOST_HEADERS)
                .serve_connection(
                    TokioIo::new(WriteDeadline::new(stream, TAKE_WITHIN)),
                    service
                )
        );
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = self.cut.cancelled() => return,
                }
            }
        };
        if let Err(error) = ended {
            debug!(%error, "a connection ended");
        }
    }

    /// Says that there are too many connections, if not too many are told so already.
    fn refuse(&self, accepted: Accepted, is_tls: bool) {
        counter!("sd_agent_refused_total", "reason" => "connections").increment(1);
        if is_tls || self.refusals.fetch_add(1, Ordering::Relaxed) >= MOST_REFUSALS {
            if !is_tls {
                self.refusals.fetch_sub(1, Ordering::Relaxed);
            }
            return;
        }
        let refusals = Arc::clone(&self.refusals);
        self.tasks.spawn(async move {
            let _ = match accepted {
                Accepted::Tcp(stream, _) => timeout(REFUSE_WITHIN, refused(stream)).await,
                Accepted::Unix(stream, _) => timeout(REFUSE_WITHIN, refused(stream)).await,
            };
            refusals.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn refused(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n",
        FULL.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(FULL.as_bytes()).await?;
    stream.shutdown().await?;
    // Until the client has read it: what is left unread would reset the connection, and take the answer away.
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// A place among the connections of one address.
struct Place {
    open: Arc<AtomicUsize>,
    name: Arc<str>,
}

impl Place {
    fn take(open: &Arc<AtomicUsize>, most: usize, name: &Arc<str>) -> Option<Self> {
        let one_more = |open| (open < most).then_some(open + 1);
        open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        let place = Self {
            open: Arc::clone(open),
            name: Arc::clone(name),
        };
        gauge!("sd_agent_connections", "listen" => place.name.to_string()).increment(1.0);
        Some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        gauge!("sd_agent_connections", "listen" => self.name.to_string()).decrement(1.0);
    }
}
