//! The task that runs a connection from dialling to the end.
//!
//! It owns all that the connection needs: h2's side of it, the streamed requests, PINGs. Dropping the task ends the connection,
//! its socket and all its streams.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use h2::client::{Builder, SendRequest};
use sd_core::{Instance, Printable};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tracing::debug;

use crate::config::{ChannelConfig, KeepAlive};
use crate::connection::{Connection, Leave};
use crate::event::Event;
use crate::ping::{Found, Pings};
use crate::pump::Pump;
use crate::subchannel::Subchannel;
use crate::transport::Transport;
use crate::wire::{WatchedIo, Wire};

/// What a connection's task needs.
pub(crate) struct Job {
    pub(crate) subchannel: Arc<Subchannel>,
    pub(crate) instance: Arc<Instance>,
    pub(crate) transport: Arc<Transport>,
    pub(crate) config: Arc<ChannelConfig>,
    pub(crate) keep_alive: Option<KeepAlive>,
    /// One more connection to an endpoint that has one.
    pub(crate) extra: bool,
    pub(crate) events: mpsc::Sender<Event>,
}

/// Opens a connection and runs it until it has ended. Tells the driver how it goes.
pub(crate) async fn run(job: Job) {
    let limit = job.config.connect_timeout;
    // The driver hears of the end in any case: a connector's panic is a failure to connect.
    let opening = AssertUnwindSafe(timeout(limit, open(&job))).catch_unwind();
    let (connection, serve) = match opening.await {
        Ok(Ok(Ok(opened))) => opened,
        failed => {
            let error = match failed {
                Ok(Ok(Err(error))) => error,
                Ok(_) => format!("not connected within {limit:?} (connect_timeout)"),
                Err(_) => "opening the connection panicked".to_owned(),
            };
            let event = Event::Failed {
                subchannel: job.subchannel,
                extra: job.extra,
                error: error.into(),
            };
            // The driver no longer listens when the channel is gone.
            let _ = job.events.send(event).await;
            return;
        }
    };
    let opened_at = Instant::now();
    let event = Event::Connected {
        subchannel: Arc::clone(&job.subchannel),
        extra: job.extra,
        connection: Arc::clone(&connection),
    };
    if job.events.send(event).await.is_err() {
        return;
    }
    let mut life = Life {
        serve,
        connection: Arc::clone(&connection),
        opened_at,
        drain_timeout: job.config.drain_timeout,
        drained_at: None,
        idle_check: job
            .extra
            .then(|| IdleCheck::new(job.config.close_idle_after)),
        max_streams: connection.wire().max_streams(),
        was_full: false,
        told: false,
        closing: false,
    };
    // The driver hears of the end in any case: with the connection, users' streams and sockets are dropped, and may panic.
    if AssertUnwindSafe(live(&job, &mut life))
        .catch_unwind()
        .await
        .is_err()
    {
        connection.leave(Leave::Broken(PANICKED.to_owned()));
    }
    let untold = (!life.told).then(|| life.leaving(&job));
    let _ = catch_unwind(AssertUnwindSafe(|| drop(life)));
    let _ = catch_unwind(AssertUnwindSafe(|| connection.close()));
    if let Some(leaving) = untold {
        let _ = job.events.send(leaving).await;
    }
    let event = Event::Ended {
        subchannel: job.subchannel,
        connection,
    };
    // The driver no longer listens when the channel is gone.
    let _ = job.events.send(event).await;
}

/// Runs an open connection until it has ended.
async fn live(job: &Job, life: &mut Life) {
    loop {
        let step = std::future::poll_fn(|cx| life.poll(cx)).await;
        let event = match step {
            Step::Roomier => Event::Roomier,
            Step::Idle => Event::Idle {
                subchannel: Arc::clone(&job.subchannel),
                connection: Arc::clone(&life.connection),
            },
            Step::Leaving => life.leaving(job),
            Step::Ended => return,
        };
        // Telling must not stop the streams that are still in flight.
        let telling = job.events.send(event);
        tokio::pin!(telling);
        std::future::poll_fn(|cx| {
            life.connection.register(cx.waker());
            let _ = life.serve.poll(cx, &life.connection);
            telling.as_mut().poll(cx).map(drop)
        })
        .await;
        life.told |= matches!(step, Step::Leaving);
    }
}

const PANICKED: &str = "a task of the connection panicked";

/// How many cancelled streams h2 remembers, for frames that were under way when they were cancelled.
const CANCELLED_REMEMBERED: usize = 256;
/// How much memory beyond their bytes the small messages of one connection may take until they are read; enough for a quarter
/// of a million messages. h2 closes the connection after that.
const SMALL_FRAMES: usize = 64 * 1024 * 1024;
/// How much of one stream h2 takes from the request before it has left.
const SEND_BUFFER: usize = 1024 * 1024;

/// Dials, shakes hands and waits for the server's SETTINGS.
async fn open(job: &Job) -> Result<(Arc<Connection>, Serve), String> {
    let io = job
        .transport
        .connect(Arc::clone(&job.instance))
        .await
        .map_err(|error| error.to_string())?;
    let wire = Arc::new(Wire::new(job.config.connection_window));
    let (sender, mut http2): (SendRequest<Bytes>, _) = Builder::new()
        .enable_push(false)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(job.config.max_header_list_size)
        .initial_window_size(job.config.stream_window)
        .initial_connection_window_size(job.config.connection_window)
        .data_frame_budget(SMALL_FRAMES)
        // Frames for streams that were cancelled some time ago are no reason to end the connection.
        .max_local_error_reset_streams(None)
        .max_concurrent_reset_streams(CANCELLED_REMEMBERED)
        .handshake(WatchedIo::new(io, Arc::clone(&wire)))
        .await
        .map_err(|error| format!("the HTTP/2 handshake failed: {error}"))?;
    let ping_pong = http2.ping_pong();
    let mut serve = Serve {
        http2: Some(http2),
        pumps: FuturesUnordered::new(),
        failure: None,
        pings: ping_pong.map(|ping_pong| Pings::new(ping_pong, job.keep_alive)),
    };
    let target = Arc::clone(job.subchannel.target());
    let max_streams = job.config.max_streams.unwrap_or(u32::MAX);
    let connection = Connection::new(target, sender, wire, max_streams);
    std::future::poll_fn(|cx| {
        if serve.poll(cx, &connection).is_ready() {
            let why = serve.why_ended(connection.wire());
            Poll::Ready(Err(format!("the server sent no HTTP/2 SETTINGS: {why}")))
        } else if connection.wire().is_settled() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await?;
    Ok((Arc::new(connection), serve))
}

/// The life of an open connection, as a future with several results.
struct Life {
    serve: Serve,
    connection: Arc<Connection>,
    opened_at: Instant,
    drain_timeout: Duration,
    drained_at: Option<Pin<Box<Sleep>>>,
    idle_check: Option<IdleCheck>,
    /// How many streams the server allowed when last looked at.
    max_streams: u32,
    /// Whether its window was full when last looked at.
    was_full: bool,
    /// The driver knows that it takes no new calls.
    told: bool,
    closing: bool,
}

enum Step {
    /// It takes more calls than before.
    Roomier,
    /// It had no call for a while.
    Idle,
    /// It takes no new calls from now on. Once the driver was told, this does not come again.
    Leaving,
    /// It is over.
    Ended,
}

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);

impl Life {
    fn leaving(&self, job: &Job) -> Event {
        let connection = &self.connection;
        Event::Leaving {
            subchannel: Arc::clone(&job.subchannel),
            reason: connection.reason().cloned().unwrap_or(Leave::Unwanted),
            answered: connection.wire().has_answered(),
            lived: self.opened_at.elapsed(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let connection = &*self.connection;
        connection.register(cx.waker());
        let ended = self.serve.poll(cx, connection).is_ready();
        let found = self.serve.poll_pings(cx, connection);
        if connection.is_open() {
            if let Some(go_away) = connection.wire().go_away() {
                connection.leave(Leave::GoAway(go_away.clone()));
            } else if ended {
                let why = self.serve.why_ended(connection.wire());
                connection.leave(Leave::Broken(why));
            }
        }
        match found {
            Some(Found::Alive) if connection.is_open() && connection.is_doubted() => {
                connection.settle_doubt();
                return Poll::Ready(Step::Roomier);
            }
            Some(Found::Alive) if !connection.is_open() => {
                // Late, but there: what it does for the calls in flight may still come to something.
                connection.not_silent();
                if !connection.is_draining() && !self.closing {
                    self.drained_at = None;
                }
            }
            Some(Found::Silent) if connection.is_open() => connection.leave(Leave::Silent),
            Some(Found::Dead) => {
                let why = "keep-alive: the server did not answer a ping in time";
                connection.leave(Leave::Broken(why.to_owned()));
                // What is in flight ends with it.
                self.serve.end(why);
            }
            _ => {}
        }
        if connection.is_open() {
            let idle = self.idle_check.as_mut();
            if idle.is_some_and(|check| check.poll(cx, connection)) {
                // Whether it is one too many is for the driver to say: another one may have broken since.
                return Poll::Ready(Step::Idle);
            }
            let wire = connection.wire();
            let before = std::mem::replace(&mut self.max_streams, wire.max_streams());
            let was_full = std::mem::replace(&mut self.was_full, wire.is_full());
            if self.max_streams > before || (was_full && !self.was_full) {
                return Poll::Ready(Step::Roomier);
            }
            return Poll::Pending;
        }
        if !self.told {
            return Poll::Ready(Step::Leaving);
        }
        if ended || self.serve.http2.is_none() {
            return Poll::Ready(Step::Ended);
        }
        if !self.closing && connection.calls() == 0 {
            self.closing = true;
            self.drained_at = Some(Box::pin(sleep(GOODBYE)));
            connection.close();
            // h2 says goodbye when it is polled without a sender and streams.
            cx.waker().wake_by_ref();
        }
        if !self.closing && !connection.is_draining() {
            return Poll::Pending;
        }
        let limit = self.drain_timeout;
        self.drained_at
            .get_or_insert_with(|| Box::pin(sleep(limit)))
            .as_mut()
            .poll(cx)
            .map(|()| Step::Ended)
    }
}

/// Finds out that a connection has had no call for a while.
struct IdleCheck {
    every: Duration,
    next: Pin<Box<Sleep>>,
    used: bool,
}

impl IdleCheck {
    fn new(every: Duration) -> Self {
        Self {
            every,
            next: Box::pin(sleep(every)),
            used: true,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, connection: &Connection) -> bool {
        self.used |= connection.calls() > 0;
        if self.next.as_mut().poll(cx).is_pending() {
            return false;
        }
        let idle = !self.used;
        self.used = false;
        self.next.as_mut().reset(Instant::now() + self.every);
        // Registers the timer.
        let _ = self.next.as_mut().poll(cx);
        idle
    }
}

/// h2's side of a connection, and what runs for its streams.
struct Serve {
    /// `None` when it has ended.
    http2: Option<h2::client::Connection<WatchedIo, Bytes>>,
    pumps: FuturesUnordered<Pump>,
    /// What ended it, where the socket has nothing to say.
    failure: Option<String>,
    pings: Option<Pings>,
}

impl Serve {
    /// Ready when the socket is closed and no stream is left. A panic in there, where users' code runs too, breaks this
    /// connection and nothing else.
    fn poll(&mut self, cx: &mut Context<'_>, connection: &Connection) -> Poll<()> {
        let polled = catch_unwind(AssertUnwindSafe(|| self.poll_all(cx, connection)));
        polled.unwrap_or_else(|_| {
            self.end(PANICKED);
            Poll::Ready(())
        })
    }

    fn poll_pings(&mut self, cx: &mut Context<'_>, connection: &Connection) -> Option<Found> {
        match self.pings.as_mut()?.poll(cx, connection) {
            Poll::Ready(found) => Some(found),
            Poll::Pending => None,
        }
    }

    /// Ends it with all its streams.
    fn end(&mut self, why: &str) {
        self.http2 = None;
        self.pumps.clear();
        self.failure.get_or_insert_with(|| why.to_owned());
    }

    fn why_ended(&self, wire: &Wire) -> String {
        if let Some(language) = wire.language() {
            return format!("the server speaks {language} here, and not HTTP/2");
        }
        let why = wire.error().or(self.failure.as_deref());
        why.unwrap_or("the server closed the connection").to_owned()
    }

    fn poll_all(&mut self, cx: &mut Context<'_>, connection: &Connection) -> Poll<()> {
        self.pumps.extend(connection.take_pumps());
        // Before h2, which then sends what they gave it.
        while let Poll::Ready(Some(())) = self.pumps.poll_next_unpin(cx) {}
        let Some(http2) = &mut self.http2 else {
            return Poll::Ready(());
        };
        let Poll::Ready(ended) = Pin::new(http2).poll(cx) else {
            return Poll::Pending;
        };
        if let Err(error) = ended {
            let error = error.to_string();
            debug!(error = %Printable(&error), "connection failed");
            self.failure = Some(error);
        }
        self.http2 = None;
        self.pumps.clear();
        Poll::Ready(())
    }
}
