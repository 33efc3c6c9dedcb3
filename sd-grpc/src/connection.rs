//! One HTTP/2 connection as calls see it: how many of them it carries, and whether it takes more.
//!
//! A request goes straight into h2, which either has it under its lock or says that it has not: there is no queue in between
//! in which a call could be lost.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Waker;

use bytes::Bytes;
use crossbeam_utils::CachePadded;
use futures_util::task::AtomicWaker;
use h2::client::{ResponseFuture, SendRequest};
use http::Request;
use sd_core::Printable;
use sd_core::sync::lock;
use tokio::time::Instant;
use tracing::debug;

use crate::pump::Pump;
use crate::request_body::RequestBody;
use crate::silence::Silence;
use crate::target::Target;
use crate::wire::{GoAway, Wire};

const OPEN: u8 = 0;
const LEAVING: u8 = 1;

/// From this stream on a connection is replaced: the numbers end at 2^31.
const LAST_STREAM: u32 = (1 << 31) - (1 << 24);

/// A connection that is or was usable.
pub(crate) struct Connection {
    target: Arc<Target>,
    /// `None` once nothing more is to be sent. h2 says goodbye when this is gone and no stream is left.
    sender: Mutex<Option<SendRequest<Bytes>>>,
    /// Streamed requests on their way to the task.
    pumps: Mutex<Vec<Pump>>,
    wire: Arc<Wire>,
    max_streams: u32,
    calls: CachePadded<AtomicU32>,
    state: AtomicU8,
    reason: OnceLock<Leave>,
    /// The endpoint was removed or moved, or the channel closed: the calls in flight have the drain time left. After a goodbye
    /// they may take theirs, until this.
    unwanted: AtomicBool,
    /// The server left a PING unanswered: the calls in flight have the drain time left, unless it answers after all.
    silent: AtomicBool,
    silence: Mutex<Silence>,
    /// It is being found out whether the server is there. Takes no calls meanwhile.
    doubted: AtomicBool,
    task: AtomicWaker,
}

/// Why a connection takes no new calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// The endpoint was removed or moved, or the channel closed.
    Unwanted,
    /// One more than needed.
    Idle,
    /// Its streams are used up.
    UsedUp,
    /// The server answered neither calls nor a PING.
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
            Self::UsedUp => f.write_str("the connection has no stream numbers left"),
            Self::Silent => {
                f.write_str("the server is silent: it answers neither calls nor a PING")
            }
            Self::GoAway(go_away) => write!(f, "the server sent GOAWAY: {go_away}"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

/// Why nothing of a request was sent.
#[derive(Debug)]
pub(crate) enum Unsent {
    /// The connection takes no more. Another one may.
    Closed,
    /// Its headers are larger than the server takes. h2 would send them, and the server may close the connection over it.
    TooLarge { bytes: u64, limit: u32 },
    /// HTTP/2 cannot carry it. No connection will.
    Invalid(h2::Error),
}

impl Connection {
    pub(crate) fn new(
        target: Arc<Target>,
        sender: SendRequest<Bytes>,
        wire: Arc<Wire>,
        max_streams: u32,
    ) -> Self {
        Self {
            target,
            sender: Mutex::new(Some(sender)),
            pumps: Mutex::default(),
            wire,
            max_streams,
            calls: CachePadded::default(),
            state: AtomicU8::new(OPEN),
            reason: OnceLock::new(),
            unwanted: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            silence: Mutex::default(),
            doubted: AtomicBool::new(false),
            task: AtomicWaker::new(),
        }
    }

    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// How many calls are in flight.
    pub(crate) fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state.load(Ordering::SeqCst) == OPEN
    }

    pub(crate) fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::SeqCst)
    }

    fn limit(&self) -> u32 {
        if self.is_doubted() || self.wire.is_full() {
            return 0;
        }
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

    /// Gives a request to h2, which keeps what the server's windows do not let pass yet.
    pub(crate) fn send(
        &self,
        request: Request<()>,
        body: RequestBody,
    ) -> Result<ResponseFuture, Unsent> {
        let limit = self.wire.max_header_list();
        if limit < u32::MAX {
            let bytes = header_list_size(&request);
            if bytes > u64::from(limit) {
                return Err(Unsent::TooLarge { bytes, limit });
            }
        }
        let Some(mut sender) = lock(&self.sender).clone() else {
            return Err(Unsent::Closed);
        };
        let is_all = matches!(body, RequestBody::Whole(None));
        let (response, mut stream) = sender.send_request(request, is_all).map_err(|error| {
            if error.is_io() || error.is_go_away() || error.is_reset() {
                Unsent::Closed
            } else {
                Unsent::Invalid(error)
            }
        })?;
        if response.stream_id().as_u32() >= LAST_STREAM {
            self.leave(Leave::UsedUp);
        }
        match body {
            RequestBody::Whole(None) => {}
            RequestBody::Whole(Some(message)) => {
                // It fails if the connection broke meanwhile, which the response tells.
                let _ = stream.send_data(message, true);
            }
            RequestBody::Stream(messages) => {
                lock(&self.pumps).push(Pump::new(messages, stream));
                self.task.wake();
            }
        }
        Ok(response)
    }

    /// The streamed requests that came since the last time.
    pub(crate) fn take_pumps(&self) -> Vec<Pump> {
        std::mem::take(&mut *lock(&self.pumps))
    }

    /// Nothing more will be sent.
    pub(crate) fn close(&self) {
        let sender = lock(&self.sender).take();
        drop(sender);
        let pumps = self.take_pumps();
        drop(pumps);
    }

    /// Takes no new calls from now on. The task sees to the rest.
    pub(crate) fn leave(&self, reason: Leave) {
        match reason {
            Leave::Unwanted => self.unwanted.store(true, Ordering::SeqCst),
            Leave::Silent => self.silent.store(true, Ordering::SeqCst),
            _ => {}
        }
        // The first reason is the one that is told.
        if self.reason.set(reason).is_ok() {
            debug!(endpoint = %Printable(&self.target.label()), reason = ?self.reason.get(), "connection takes no new calls");
        }
        self.state.store(LEAVING, Ordering::SeqCst);
        self.task.wake();
    }

    pub(crate) fn reason(&self) -> Option<&Leave> {
        self.reason.get()
    }

    /// Whether the calls in flight have only the drain time left.
    pub(crate) fn is_draining(&self) -> bool {
        self.unwanted.load(Ordering::SeqCst) || self.silent.load(Ordering::SeqCst)
    }

    /// The server answers after all. The calls in flight may take their time, unless the connection is unwanted.
    pub(crate) fn not_silent(&self) {
        self.silent.store(false, Ordering::SeqCst);
    }

    /// Has the task woken.
    pub(crate) fn register(&self, waker: &Waker) {
        self.task.register(waker);
    }

    /// A call that `began` when the server had sent `life` got nothing. After `limit` of these, one after another and without
    /// a sign of life in between, the server is asked.
    pub(crate) fn got_nothing(&self, began: Instant, life: u64, limit: u32) {
        if self.wire.life() != life || limit == 0 || !self.is_open() {
            return;
        }
        let count = lock(&self.silence).count(began, Instant::now(), life);
        if count >= limit {
            self.doubted.store(true, Ordering::SeqCst);
            self.task.wake();
        }
    }

    /// The doubt is over, either way.
    pub(crate) fn settle_doubt(&self) {
        *lock(&self.silence) = Silence::default();
        self.doubted.store(false, Ordering::SeqCst);
    }

    /// Why it broke, where it did.
    pub(crate) fn close_reason(&self) -> Option<String> {
        match self.reason.get() {
            Some(Leave::Broken(why)) => Some(why.clone()),
            Some(reason @ Leave::GoAway(_)) => Some(reason.to_string()),
            Some(reason @ Leave::Silent) if self.silent.load(Ordering::SeqCst) => {
                Some(reason.to_string())
            }
            _ => self.wire.error().map(str::to_owned),
        }
    }
}

/// As `SETTINGS_MAX_HEADER_LIST_SIZE` counts (RFC 9113, section 6.5.2).
fn header_list_size(request: &Request<()>) -> u64 {
    const FIELD: usize = 32;
    let uri = request.uri();
    let text = |part: Option<&str>| part.map_or(0, str::len);
    let path = text(uri.path_and_query().map(http::uri::PathAndQuery::as_str));
    let pseudo = [
        (":method", request.method().as_str().len()),
        (":scheme", text(uri.scheme_str())),
        (
            ":authority",
            text(uri.authority().map(http::uri::Authority::as_str)),
        ),
        (":path", path),
    ];
    let pseudo = pseudo.map(|(name, value)| name.len() + value + FIELD);
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD);
    pseudo.into_iter().chain(fields).sum::<usize>() as u64
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
