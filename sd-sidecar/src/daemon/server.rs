//! Connections: accepting them within bounds, and TLS, until the agent stops.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::config::Listen;
use super::connection::{self, Ends, HEAD_WITHIN};
use super::gate::Gate;
use super::listener::{Accepted, Bound};
use super::refusal::{FULL, NO_TLS};
use super::security::Peer;

/// Connections beyond the limit that are told so at the same time. Others are closed without a word.
const MOST_REFUSALS: usize = 64;
const REFUSE_WITHIN: Duration = Duration::from_secs(1);
/// Before accepting is tried again where the process may open no more files.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

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
        let places = Arc::new(Places::new(&bound.listen));
        let name = &places.name;
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
            let place = Place::take(&places, self.gate.settings().connections);
            let server = self.clone();
            let is_tls = matches!(bound.listen, Listen::Tls(_));
            match (place, accepted) {
                (Some(place), accepted) => {
                    let scarce = places.scarce.subscribe();
                    self.tasks.spawn(async move {
                        server.connection(accepted, is_tls, scarce).await;
                        drop(place);
                    });
                }
                (None, accepted) => self.refuse(accepted, is_tls),
            }
        }
    }

    async fn connection(&self, accepted: Accepted, is_tls: bool, scarce: watch::Receiver<bool>) {
        match accepted {
            Accepted::Unix(stream, user) => {
                let always = CancellationToken::new();
                self.http(stream, Peer::User(user), always, scarce).await;
            }
            Accepted::Tcp(stream, peer) => {
                let ip = peer.ip().to_canonical();
                let peer = if ip.is_loopback() {
                    Peer::Loopback
                } else {
                    Peer::Remote(ip)
                };
                if !is_tls {
                    let always = CancellationToken::new();
                    return self.http(stream, peer, always, scarce).await;
                }
                let settings = self.gate.settings();
                let Some(tls) = &settings.tls else {
                    return;
                };
                let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
                let handshake = timeout(HEAD_WITHIN, async {
                    if begins_as_http(&stream).await? {
                        return Ok(Err(stream));
                    }
                    acceptor.accept(stream).await.map(Ok)
                });
                let shaken = tokio::select! {
                    () = self.stop.cancelled() => return,
                    shaken = handshake => shaken,
                };
                match shaken {
                    Ok(Ok(Ok(stream))) => {
                        let clients = settings.clients.clone();
                        self.http(stream, peer, clients, scarce).await;
                    }
                    Ok(Ok(Err(stream))) => {
                        debug!(%ip, "a client speaks HTTP without TLS");
                        count_refused("tls");
                        let _ = timeout(REFUSE_WITHIN, NO_TLS.send(stream)).await;
                    }
                    Ok(Err(error)) => {
                        // Any client can have this logged as often as it likes.
                        debug!(%error, %ip, "a TLS handshake failed");
                        count_refused("tls");
                    }
                    Err(_) => {
                        debug!(%ip, "a TLS handshake took too long");
                        count_refused("tls");
                    }
                }
            }
        }
    }

    async fn http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send,
        peer: Peer,
        revoked: CancellationToken,
        scarce: watch::Receiver<bool>,
    ) {
        let answer = |request| {
            let (gate, revoked) = (Arc::clone(&self.gate), revoked.clone());
            async move { gate.answer(peer, revoked, request).await }
        };
        let ends = Ends {
            stop: self.stop.clone(),
            cut: self.cut.clone(),
            scarce,
            revoked: revoked.clone(),
        };
        connection::serve(stream, answer, ends).await;
    }

    /// Says that there are too many connections, if not too many are told so already.
    fn refuse(&self, accepted: Accepted, is_tls: bool) {
        count_refused("connections");
        if is_tls || self.refusals.fetch_add(1, Ordering::Relaxed) >= MOST_REFUSALS {
            if !is_tls {
                self.refusals.fetch_sub(1, Ordering::Relaxed);
            }
            return;
        }
        let refusals = Arc::clone(&self.refusals);
        self.tasks.spawn(async move {
            let _ = match accepted {
                Accepted::Tcp(stream, _) => timeout(REFUSE_WITHIN, FULL.send(stream)).await,
                Accepted::Unix(stream, _) => timeout(REFUSE_WITHIN, FULL.send(stream)).await,
            };
            refusals.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Whether a client speaks HTTP without TLS, whose first record begins with another byte than any method.
async fn begins_as_http(stream: &TcpStream) -> io::Result<bool> {
    let mut begin = [0];
    Ok(stream.peek(&mut begin).await? > 0 && begin[0].is_ascii_uppercase())
}

/// The connections of one address.
struct Places {
    name: Arc<str>,
    taken: AtomicUsize,
    /// More than half of them are taken.
    scarce: watch::Sender<bool>,
}

impl Places {
    fn new(listen: &Listen) -> Self {
        Self {
            name: listen.to_string().into(),
            taken: AtomicUsize::new(0),
            scarce: watch::Sender::new(false),
        }
    }

    /// Says whether places are scarce. Of several that say so at once, the last one has counted all of them.
    fn note(&self, most: usize) {
        self.scarce.send_if_modified(|before| {
            let now = self.taken.load(Ordering::Relaxed) > most / 2;
            std::mem::replace(before, now) != now
        });
    }
}

/// A place among the connections of one address.
struct Place {
    of: Arc<Places>,
    most: usize,
}

impl Place {
    fn take(of: &Arc<Places>, most: usize) -> Option<Self> {
        let one_more = |taken| (taken < most).then_some(taken + 1);
        of.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        of.note(most);
        gauge!("sd_agent_connections", "listen" => of.name.to_string()).increment(1.0);
        Some(Self {
            of: Arc::clone(of),
            most,
        })
    }
}

fn count_refused(reason: &'static str) {
    counter!("sd_agent_refused_total", "reason" => reason).increment(1);
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.taken.fetch_sub(1, Ordering::Relaxed);
        self.of.note(self.most);
        gauge!("sd_agent_connections", "listen" => self.of.name.to_string()).decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn places_are_scarce_once_more_than_half_of_them_are_taken() {
        let places = Arc::new(Places::new(&"127.0.0.1:1".parse().unwrap()));
        let is_scarce = || *places.scarce.borrow();
        let mut taken: Vec<_> = (0..2).map(|_| Place::take(&places, 4).unwrap()).collect();
        assert!(!is_scarce());
        taken.push(Place::take(&places, 4).unwrap());
        assert!(is_scarce());
        taken.push(Place::take(&places, 4).unwrap());
        assert!(Place::take(&places, 4).is_none());
        taken.truncate(2);
        assert!(!is_scarce());
    }

    #[test]
    fn whether_places_are_scarce_is_right_after_many_were_taken_and_left_at_once() {
        const THREADS: usize = 4;
        let places = Arc::new(Places::new(&"127.0.0.1:1".parse().unwrap()));
        let most = THREADS + 1;
        for round in 0..2000 {
            let begin = Barrier::new(THREADS);
            let kept: Vec<Option<Place>> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..THREADS)
                    .map(|thread| {
                        let (places, begin) = (&places, &begin);
                        scope.spawn(move || {
                            begin.wait();
                            let place = Place::take(places, most);
                            place.filter(|_| (thread + round) % 2 == 0)
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect()
            });
            assert!(!*places.scarce.borrow(), "two of {most}, round {round}");
            drop(kept);
        }
    }
}
