//! One HTTP/2 connection: the handle that calls hold, and the task that runs it from dialling to the end.
//!
//! The task owns everything that hyper starts for the connection: hyper hands its futures to an [`Inbox`], and they are polled
//! here and nowhere else. Dropping the task ends the connection, its socket and all its streams.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;
use futures_util::{FutureExt, StreamExt};
use http::HeaderMap;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use sd_core::Instance;
use sd_core::balance::{LoadGuard, Outcome};
use sd_core::sync::lock;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tonic::{Code, Status};
use tracing::debug;

use crate::config::{ChannelConfig, KeepAlive};
use crate::cork::Cork;
use crate::driver::Event;
use crate::options::AttemptInfo;
use crate::request_body::RequestBody;
use crate::shared::Shared;
use crate::status;
use crate::subchannel::{Subchannel, Target};
use crate::transport::Transport;
use crate::wire::{GoAway, WatchedIo, Wire};

const OPEN: u8 = 0;
const LEAVING: u8 = 1;

/// A connection that is or was usable.
pub(crate) struct Connection {
    target: Arc<Target>,
    sender: SendRequest<RequestBody>,
    wire: Arc<Wire>,
    max_streams: u32,
    calls: CachePadded<AtomicU32>,
    state: AtomicU8,
    reason: OnceLock<Leave>,
    /// The calls in flight have the drain time left. After a goodbye they may take theirs, until the endpoint is removed.
    drain: AtomicBool,
    silence: Mutex<Silence>,
    task: AtomicWaker,
}

/// Time-outs in a row.
#[derive(Debug, Default)]
struct Silence {
    count: u32,
    /// How many bytes had come when they were counted.
    bytes: u64,
    /// When the last one was counted.
    last: Option<Instant>,
}

/// Who waited less knows nothing about the server.
const SILENCE_FLOOR: Duration = Duration::from_millis(100);

impl Silence {
    /// Counts an attempt that got nothing from `began` until `now`, while `bytes` had come. Says how many there were one
    /// after another: attempts that waited together found out the same thing, and count as one.
    fn count(&mut self, began: Instant, now: Instant, bytes: u64) -> u32 {
        if self.bytes != bytes {
            *self = Self::default();
        }
        let is_next = self.last.is_none_or(|last| began >= last);
        if is_next && now.duration_since(began) >= SILENCE_FLOOR {
            self.count += 1;
            self.bytes = bytes;
            self.last = Some(now);
        }
        self.count
    }
}

/// Why a connection takes no new calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// The endpoint was removed or moved, or the channel closed.
    Unwanted,
    /// One more than needed.
    Idle,
    /// Calls timed out one after another and not a byte came.
    Silent,
    GoAway(GoAway),
    /// It broke or was closed by the server.
    Broken(String),
}

impl fmt::Display for Leave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unwanted => f.write_str("the endpoint was removed"),
            Self::Idle => f.write_str("the connection was not needed"),
            Self::Silent => {
                f.write_str("the server is silent: calls timed out in a row without a byte from it")
            }
            Self::GoAway(go_away) => write!(f, "the server sent GOAWAY: {go_away}"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

impl Connection {
    /// How many calls are in flight.
    pub(crate) fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state.load(Ordering::SeqCst) == OPEN
    }

    fn limit(&self) -> u32 {
        self.max_streams.min(self.wire.max_streams())
    }

    pub(crate) fn has_room(&self) -> bool {
        self.is_open() && self.calls() < self.limit()
    }

    /// Takes a place for a call. Who gets `true` must call [`exit`](Self::exit).
    pub(crate) fn enter(&self) -> bool {
        let limit = self.limit();
        let entered = self
            .calls
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, |calls| {
                (calls < limit).then_some(calls + 1)
            });
        // The task looks at the calls after it has closed the door, and we at the door after we have counted ourselves: one
        // of the two sees the other.
        if entered.is_ok() && !self.is_open() {
            self.exit();
            return false;
        }
        entered.is_ok()
    }

    pub(crate) fn exit(&self) {
        if self.calls.fetch_sub(1, Ordering::SeqCst) == 1 && !self.is_open() {
            self.task.wake();
        }
    }

    /// Takes no new calls from now on. The task sees to the rest.
    pub(crate) fn leave(&self, reason: Leave) {
        if matches!(reason, Leave::Unwanted | Leave::Silent) {
            self.drain.store(true, Ordering::SeqCst);
        }
        // The first reason is the one that is told.
        let _ = self.reason.set(reason);
        self.state.store(LEAVING, Ordering::SeqCst);
        self.task.wake();
    }

    pub(crate) fn sender(&self) -> SendRequest<RequestBody> {
        self.sender.clone()
    }

    /// How many bytes the server has sent; for [`timed_out`](Self::timed_out).
    fn bytes(&self) -> u64 {
        self.wire.bytes()
    }

    /// An attempt that `began` when `bytes` had come timed out. After `limit` of these, one after another and without a byte
    /// in between, the connection counts as silent.
    fn timed_out(&self, began: Instant, bytes: u64, limit: u32) {
        if self.wire.bytes() != bytes || limit == 0 {
            return;
        }
        let count = lock(&self.silence).count(began, Instant::now(), bytes);
        if count >= limit {
            debug!(endpoint = %self.target.label(), "server fell silent");
            self.leave(Leave::Silent);
        }
    }

    fn close_reason(&self) -> Option<String> {
        match self.reason.get() {
            Some(Leave::Broken(why)) => Some(why.clone()),
            _ => self.wire.error().map(str::to_owned),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("target", &self.target.label())
            .field("calls", &self.calls())
            .field("reason", &self.reason.get())
            .finish_non_exhaustive()
    }
}

/// A call's place on a connection, from before it is sent until its response has ended.
pub(crate) struct StreamPermit {
    connection: Arc<Connection>,
    /// Keeps the driver, and with it the connection, alive.
    shared: Arc<Shared>,
    began: Instant,
    /// How many bytes had come by then.
    bytes: u64,
    /// Tells the policy. Dropped after the place is left.
    load: Option<LoadGuard>,
}

impl StreamPermit {
    /// For a call that has [entered](Connection::enter).
    pub(crate) fn new(connection: Arc<Connection>, shared: Arc<Shared>) -> Self {
        let load = connection.target.load().cloned();
        let mut permit = Self {
            bytes: connection.bytes(),
            load: None,
            connection,
            shared,
            began: Instant::now(),
        };
        // Only now: a policy that panics must not keep the place.
        permit.load = load.map(LoadGuard::begin);
        permit
    }

    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.connection.target
    }

    pub(crate) fn sender(&self) -> SendRequest<RequestBody> {
        self.connection.sender()
    }

    pub(crate) fn info(&self, attempts: u32) -> AttemptInfo {
        AttemptInfo {
            endpoint: self.target().label(),
            attempts,
        }
    }

    /// Why the connection broke, where it did.
    pub(crate) fn close_reason(&self) -> Option<String> {
        self.connection.close_reason()
    }

    /// The connection takes nothing any more. Its task is about to find out.
    pub(crate) fn closed(&self) {
        if self.connection.is_open() {
            let why = "the connection was closed".to_owned();
            self.connection.leave(Leave::Broken(why));
        }
    }

    /// Headers came: from here on the server's silence counts.
    pub(crate) fn heard(&mut self) {
        self.began = Instant::now();
        self.bytes = self.connection.bytes();
    }

    /// The server did not answer in time.
    pub(crate) fn timed_out(&self) {
        self.connection
            .timed_out(self.began, self.bytes, self.shared.config.silent_after);
    }

    /// The call got its answer here.
    pub(crate) fn succeeded(&mut self) {
        self.tell(Outcome::Success);
    }

    /// The call's answer ended with these trailers.
    pub(crate) fn answered(&mut self, trailers: &HeaderMap) {
        let code = trailers.get(Status::GRPC_STATUS);
        let code = code.map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
        let cannot_serve = matches!(code, Code::Unavailable | Code::ResourceExhausted);
        self.tell(if cannot_serve {
            Outcome::Failure
        } else {
            Outcome::Success
        });
    }

    /// The call got no answer here.
    pub(crate) fn failed(&mut self) {
        self.target().counters().error();
        self.tell(Outcome::Failure);
    }

    fn tell(&mut self, outcome: Outcome) {
        if let Some(load) = &mut self.load {
            load.tell(outcome);
        }
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.connection.exit();
        self.shared.published.freed_place();
    }
}

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
        drain_timeout: job.config.drain_timeout,
        drained_at: None,
        idle_check: job
            .extra
            .then(|| IdleCheck::new(job.config.close_idle_after)),
        max_streams: connection.wire.max_streams(),
        told: false,
        closing: false,
    };
    loop {
        let event = match std::future::poll_fn(|cx| life.poll(cx)).await {
            Step::Roomier => Event::Roomier,
            Step::Idle => Event::Idle {
                subchannel: Arc::clone(&job.subchannel),
                connection: Arc::clone(&connection),
            },
            Step::Leaving => Event::Leaving {
                subchannel: Arc::clone(&job.subchannel),
                reason: connection.reason.get().cloned().unwrap_or(Leave::Unwanted),
                lived: opened_at.elapsed(),
            },
            Step::Ended => break,
        };
        // Telling must not stop the streams that are still in flight.
        let telling = job.events.send(event);
        tokio::pin!(telling);
        std::future::poll_fn(|cx| {
            let _ = life.serve.poll(cx);
            telling.as_mut().poll(cx).map(drop)
        })
        .await;
    }
    drop(life);
    let event = Event::Ended {
        subchannel: job.subchannel,
        connection,
    };
    // The driver no longer listens when the channel is gone.
    let _ = job.events.send(event).await;
}

/// Dials, shakes hands and waits for the server's SETTINGS.
async fn open(job: &Job) -> Result<(Arc<Connection>, Serve), String> {
    let io = job
        .transport
        .connect(Arc::clone(&job.instance))
        .await
        .map_err(|error| error.to_string())?;
    let wire = Arc::new(Wire::new());
    let inbox = Inbox::default();
    let mut builder = Builder::new(inbox.clone());
    if let Some(keep_alive) = job.keep_alive {
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(keep_alive.interval)
            .keep_alive_timeout(keep_alive.timeout)
            .keep_alive_while_idle(keep_alive.while_idle);
    }
    let cork = Cork::new(io);
    let io = TokioIo::new(WatchedIo::new(cork.clone(), Arc::clone(&wire)));
    let (sender, client) = builder
        .handshake(io)
        .await
        .map_err(|error| format!("the HTTP/2 handshake failed: {error}"))?;
    let mut serve = Serve {
        client: Some(client),
        futures: FuturesUnordered::new(),
        inbox,
        failure: None,
        cork,
        wire: Arc::clone(&wire),
    };
    std::future::poll_fn(|cx| {
        let ended = serve.poll(cx).is_ready();
        if wire.is_settled() && !ended {
            Poll::Ready(Ok(()))
        } else if ended {
            let why = serve.why_ended(&wire);
            Poll::Ready(Err(format!("the server sent no HTTP/2 SETTINGS: {why}")))
        } else {
            Poll::Pending
        }
    })
    .await?;
    let connection = Connection {
        target: Arc::clone(job.subchannel.target()),
        sender,
        wire,
        max_streams: job.config.max_streams.unwrap_or(u32::MAX),
        calls: CachePadded::default(),
        state: AtomicU8::new(OPEN),
        reason: OnceLock::new(),
        drain: AtomicBool::new(false),
        silence: Mutex::default(),
        task: AtomicWaker::new(),
    };
    Ok((Arc::new(connection), serve))
}

/// The life of an open connection, as a future with several results.
struct Life {
    serve: Serve,
    connection: Arc<Connection>,
    drain_timeout: Duration,
    drained_at: Option<Pin<Box<Sleep>>>,
    idle_check: Option<IdleCheck>,
    /// How many streams the server allowed when last looked at.
    max_streams: u32,
    told: bool,
    closing: bool,
}

enum Step {
    /// The server allows more streams than before.
    Roomier,
    /// It had no call for a while.
    Idle,
    /// It takes no new calls from now on. Happens once.
    Leaving,
    /// It is over.
    Ended,
}

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);

impl Life {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let connection = &self.connection;
        connection.task.register(cx.waker());
        let ended = self.serve.poll(cx).is_ready();
        if connection.is_open() {
            if let Some(go_away) = connection.wire.go_away() {
                connection.leave(Leave::GoAway(go_away.clone()));
            } else if ended || self.serve.client.is_none() {
                let why = self.serve.why_ended(&connection.wire);
                connection.leave(Leave::Broken(why));
            } else if self
                .idle_check
                .as_mut()
                .is_some_and(|check| check.poll(cx, connection))
            {
                // Whether it is one too many is for the driver to say: another one may have broken since.
                return Poll::Ready(Step::Idle);
            }
        }
        if connection.is_open() {
            let before = std::mem::replace(&mut self.max_streams, connection.wire.max_streams());
            if self.max_streams > before {
                return Poll::Ready(Step::Roomier);
            }
            return Poll::Pending;
        }
        if !self.told {
            self.told = true;
            return Poll::Ready(Step::Leaving);
        }
        if ended {
            return Poll::Ready(Step::Ended);
        }
        if !self.closing && connection.calls.load(Ordering::SeqCst) == 0 {
            self.closing = true;
            self.drained_at = Some(Box::pin(sleep(GOODBYE)));
            connection.wire.close();
            // The reader is woken, and it is us.
            let _ = self.serve.poll(cx);
        }
        if !self.closing && !connection.drain.load(Ordering::SeqCst) {
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

type Client = hyper::client::conn::http2::Connection<TokioIo<WatchedIo>, RequestBody, Inbox>;
type Spawned = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where hyper puts the futures that it wants to run.
#[derive(Clone, Default)]
struct Inbox(Arc<Mutex<Vec<Spawned>>>);

impl Inbox {
    /// Only the connection's own task comes here: the lock is always free.
    fn lock(&self) -> MutexGuard<'_, Vec<Spawned>> {
        lock(&self.0)
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Inbox {
    fn execute(&self, future: F) {
        self.lock().push(Box::pin(future));
    }
}

/// All of hyper's side of a connection.
struct Serve {
    /// Takes requests in. `None` when it has ended: then nothing new can be sent.
    client: Option<Client>,
    /// The connection itself and what runs for its streams.
    futures: FuturesUnordered<Spawned>,
    inbox: Inbox,
    /// What ended it, where the socket has nothing to say.
    failure: Option<String>,
    /// Where they write.
    cork: Cork,
    wire: Arc<Wire>,
}

impl Serve {
    /// Ready when the socket is closed and no stream is left. A panic in there, where users' code runs too, breaks this
    /// connection and nothing else.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let polled = catch_unwind(AssertUnwindSafe(|| self.poll_futures(cx)));
        polled.unwrap_or_else(|_| {
            self.client = None;
            self.futures.clear();
            self.inbox.lock().clear();
            self.failure = Some("a task of the connection panicked".to_owned());
            Poll::Ready(())
        })
    }

    fn why_ended(&self, wire: &Wire) -> String {
        let why = wire.error().or(self.failure.as_deref());
        why.unwrap_or("the server closed the connection").to_owned()
    }

    fn poll_futures(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(client) = &mut self.client
                && let Poll::Ready(ended) = Pin::new(client).poll(cx)
            {
                if let Err(error) = ended {
                    debug!(%error, "connection failed");
                    self.failure = Some(status::root_cause(&error).to_string());
                }
                self.client = None;
            }
            let nothing_new = {
                let mut spawned = self.inbox.lock();
                let nothing_new = spawned.is_empty();
                self.futures.extend(spawned.drain(..));
                nothing_new
            };
            while let Poll::Ready(Some(())) = self.futures.poll_next_unpin(cx) {}
            if nothing_new {
                break;
            }
        }
        if let Poll::Ready(false) = self.cork.poll_send(cx) {
            self.wire.wake_reader();
        }
        if self.client.is_none() && self.futures.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_outs_one_after_another_and_without_a_byte_in_between_count() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut silence = Silence::default();
        assert_eq!(silence.count(at(0), at(99), 7), 0, "too short");
        assert_eq!(silence.count(at(0), at(100), 7), 1);
        assert_eq!(
            silence.count(at(0), at(101), 7),
            1,
            "together with the first"
        );
        assert_eq!(
            silence.count(at(50), at(300), 7),
            1,
            "together with the first"
        );
        assert_eq!(silence.count(at(100), at(300), 7), 2);
        assert_eq!(silence.count(at(300), at(400), 8), 1, "a byte came");
        assert_eq!(silence.count(at(400), at(500), 8), 2);
    }
}
