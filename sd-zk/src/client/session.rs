//! One session at ZooKeeper, and requests in it.
//!
//! ZooKeeper carries out the requests of one session in the order in which their futures were made. That holds for a request that was given
//! up as well: it may still be carried out, but before everything that comes after it.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sd_core::clock::Moment;
use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, Result, panics};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use zookeeper_client as zk;

use crate::client::error::{is_from_dead_client, translate};

/// How many requests may wait for their answers at once. The client crate's queue has no bound of its own.
const MOST_UNANSWERED: usize = 10_000;
/// The client crate's bound is 128 KiB. Other watches, of elections for instance, are few.
const MOST_WATCHED_BYTES: usize = 120 * 1024;

/// A session that was made. It has ended when the server or the client says so, when it is replaced, and when the runtime that drives it
/// has ended. Clones are the same session.
#[derive(Clone)]
pub(crate) struct Session(Arc<Parts>);

struct Parts {
    id: i64,
    timeout: Duration,
    asked: Moment,
    request_timeout: Duration,
    states: zk::StateWatcher,
    /// Once nothing holds it any more, the session is closed at the server.
    client: Mutex<Option<Arc<zk::Client>>>,
    ended: CancellationToken,
    denied: Notify,
    /// The client crate puts the chroot before each path.
    chroot_bytes: usize,
    /// How many bytes the paths have that are under watch.
    watched: AtomicUsize,
    why: Mutex<Option<String>>,
    unanswered: AtomicUsize,
}

impl Session {
    /// One that was asked for at this moment, or later.
    pub(crate) fn new(client: zk::Client, request_timeout: Duration, asked: Moment) -> Self {
        Self(Arc::new(Parts {
            id: client.session_id().0,
            timeout: client.session_timeout(),
            asked,
            request_timeout,
            chroot_bytes: client.path().trim_end_matches('/').len(),
            states: client.state_watcher(),
            client: Mutex::new(Some(Arc::new(client))),
            ended: CancellationToken::new(),
            denied: Notify::new(),
            watched: AtomicUsize::new(0),
            why: Mutex::default(),
            unanswered: AtomicUsize::new(0),
        }))
    }

    /// The number that ZooKeeper has given it, which its ephemeral nodes show as their owner.
    pub(crate) fn id(&self) -> i64 {
        self.0.id
    }

    /// For how long the server keeps it without a sign of life, as granted.
    pub(crate) fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// Not later than the request that made it.
    pub(crate) fn asked(&self) -> Moment {
        self.0.asked
    }

    /// Tells of the connection's states: lost, and back in the same session.
    pub(crate) fn states(&self) -> zk::StateWatcher {
        let mut states = self.0.states.clone();
        states.state();
        states
    }

    /// The client, to make requests of for [`call`](Self::call) and [`answer`](Self::answer), as soon as there is a connection. Do not
    /// keep it: it keeps the session. Cancel-safe.
    ///
    /// What is asked for without a connection stays in the queue of the client crate although it is given up, and is sent at last.
    ///
    /// # Errors
    /// `LeaseLost` if the session has ended, `Timeout` if there is no connection within the time limit of requests, `RateLimited` if
    /// too many requests wait for their answers.
    pub(crate) async fn client(&self, op: &'static str) -> Result<Arc<zk::Client>> {
        let limit = self.0.request_timeout;
        if !self.is_connected() {
            tokio::select! {
                biased;
                lost = self.ended(op) => return Err(lost),
                connected = timeout(limit, self.connected()) => connected.map_err(|_| {
                    Error::new(ErrorKind::Timeout, op)
                        .because(format!("there was no connection to the server within {limit:?}"))
                })?,
            }
        }
        if self.0.unanswered.load(Ordering::Relaxed) >= MOST_UNANSWERED {
            let full = Error::new(ErrorKind::RateLimited { retry_after: None }, op);
            return Err(full.because(format!(
                "{MOST_UNANSWERED} requests wait for the server's answer already: try again later"
            )));
        }
        let client = lock(&self.0.client).clone();
        client.ok_or_else(|| self.loss(op))
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.0.states.peek_state() != zk::SessionState::Disconnected
    }

    /// Returns when there is a connection, or never will be. Cancel-safe.
    pub(crate) async fn connected(&self) {
        let mut states = self.states();
        while !self.is_connected() {
            states.changed().await;
        }
    }

    /// Waits for the answer to a request, within the time limit of requests.
    ///
    /// # Errors
    /// `LeaseLost` if the session has ended, `Timeout` if no answer comes in time: the request may still be carried out. Otherwise the
    /// server's, as ours.
    pub(crate) async fn call<T, E>(
        &self,
        op: &'static str,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T>
    where
        E: Into<zk::Error> + Clone,
    {
        let answer = self.answer(op, request).await?;
        answer.map_err(|error| translate(op, error.into()))
    }

    /// As [`call`](Self::call), with the server's own error apart.
    ///
    /// # Errors
    /// If there is no answer.
    pub(crate) async fn answer<T, E>(
        &self,
        op: &'static str,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<Result<T, E>>
    where
        E: Into<zk::Error> + Clone,
    {
        let limit = self.0.request_timeout;
        let _waiting = Waiting::new(&self.0.unanswered);
        // The client panics at answers that are cut short.
        let request = panics::caught(op, async { Ok(request.await) });
        let answer = tokio::select! {
            biased;
            lost = self.ended(op) => return Err(lost),
            answer = timeout(limit, request) => answer.unwrap_or_else(|_| Err(no_answer(op, limit)))?,
        };
        if let Err(error) = &answer {
            let error = error.clone().into();
            if is_from_dead_client(&error) {
                self.end("what drove its client is gone");
                return Err(self.loss(op));
            }
            if error == zk::Error::NoAuth {
                self.0.denied.notify_one();
            }
        }
        Ok(answer)
    }

    /// For a feed to say how much it watches.
    pub(crate) fn watching(&self) -> Watching {
        Watching {
            session: self.clone(),
            bytes: 0,
        }
    }

    /// Whether the client can set all watches again over another connection. It puts so much into one request, and takes the answer to a
    /// second one for that of no request: it ends the connection, and the next one in the same way.
    pub(crate) fn can_reconnect(&self) -> bool {
        self.0.watched.load(Ordering::Relaxed) <= MOST_WATCHED_BYTES
    }

    /// Returns when something was not allowed since the last time. Cancel-safe.
    pub(crate) async fn denied(&self) {
        self.0.denied.notified().await;
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.ended.is_cancelled()
    }

    /// Returns when it has ended. Cancel-safe.
    pub(crate) async fn ended(&self, op: &'static str) -> Error {
        self.0.ended.cancelled().await;
        self.loss(op)
    }

    /// Ends it, for this reason. The first reason counts.
    pub(crate) fn end(&self, why: impl Into<String>) {
        lock(&self.0.why).get_or_insert_with(|| why.into());
        self.0.ended.cancel();
        // Not under the lock: to drop the last client does more than that.
        let client = lock(&self.0.client).take();
        drop(client);
    }

    /// Why it has ended, as the error of an operation.
    pub(crate) fn loss(&self, op: &'static str) -> Error {
        let why = lock(&self.0.why).clone();
        Error::new(ErrorKind::LeaseLost, op).because(format!(
            "the session {:#x} has ended: {}",
            self.0.id,
            why.as_deref().unwrap_or("it was closed")
        ))
    }
}

/// A request whose answer is waited for.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(unanswered: &'a AtomicUsize) -> Self {
        unanswered.fetch_add(1, Ordering::Relaxed);
        Self(unanswered)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one feed watches in a session, until it is dropped.
#[derive(Debug)]
pub(crate) struct Watching {
    session: Session,
    bytes: usize,
}

impl Watching {
    /// Sets how long the watched paths are, as seen from the chroot.
    pub(crate) fn set(&mut self, lengths: impl Iterator<Item = usize>) {
        let chroot = self.session.0.chroot_bytes;
        let bytes = lengths.map(|length| chroot + length).sum();
        let watched = &self.session.0.watched;
        watched.fetch_add(bytes, Ordering::Relaxed);
        watched.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.set(std::iter::empty());
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({:#x})", self.0.id)
    }
}

pub(crate) fn no_answer(op: &'static str, limit: Duration) -> Error {
    Error::new(ErrorKind::Timeout, op)
        .because(format!("the server did not answer within {limit:?}"))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::FutureExt;
    use sd_testing::{LONG, required_env};

    use super::*;

    #[tokio::test]
    #[ignore = "needs zk: cargo xtask test --backend zk"]
    async fn a_request_that_would_wait_behind_too_many_others_is_refused() {
        let client = zk::Client::connect(&required_env("SD_TEST_ZK").unwrap()).await;
        let session = Session::new(client.unwrap(), LONG, Moment::ZERO);
        let never = || Box::pin(session.answer("test", pending::<Result<(), zk::Error>>()));
        let mut waiting: Vec<_> = (0..MOST_UNANSWERED).map(|_| never()).collect();
        for request in &mut waiting {
            assert!(request.as_mut().now_or_never().is_none());
        }
        let refused = session.client("test").await.unwrap_err();
        let kind = ErrorKind::RateLimited { retry_after: None };
        assert_eq!(refused.kind(), kind);
        waiting.pop();
        session.client("test").await.unwrap();
    }
}
