//! The connection that all requests of one client share.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sd_core::Result;
use sd_core::sync::lock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::close_signal::{CloseSignal, LetGo};

/// Keeps the connection that requests share: made when it is needed, kept until it is retired, and let go when the backend is closed.
/// One that is retired serves the requests that hold it to their end.
pub struct SharedConnection<C> {
    kept: Arc<Mutex<Kept<C>>>,
    signal: CloseSignal,
    connecting: tokio::sync::Mutex<()>,
}

struct Kept<C> {
    connection: Option<Connection<C>>,
    retirements: usize,
}

/// What a request goes out on.
pub struct Connection<C> {
    parts: Arc<C>,
    retired: CancellationToken,
}

impl<C: Send + Sync + 'static> SharedConnection<C> {
    /// No connection yet.
    pub fn new(signal: &CloseSignal) -> Self {
        let kept = Arc::new(Mutex::new(Kept {
            connection: None,
            retirements: 0,
        }));
        let letting_go = Arc::downgrade(&kept);
        signal.add(letting_go);
        Self {
            kept,
            signal: signal.clone(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    /// The connection to use now, if there is one.
    pub fn current(&self) -> Option<Connection<C>> {
        lock(&self.kept).connection.clone()
    }

    /// The connection to use now. If there is none, one caller at a time connects.
    ///
    /// # Errors
    /// Those of `connect`.
    ///
    /// # Cancel safety
    /// A dropped call drops `connect`, and the next one begins with its own.
    pub async fn get_or_connect(
        &self,
        connect: impl Future<Output = Result<C>>,
    ) -> Result<Connection<C>> {
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        let _turn = self.connecting.lock().await;
        match self.current() {
            Some(connection) => Ok(connection),
            None => Ok(self.put(connect.await?)),
        }
    }

    /// Uses this one from now on. Keeps nothing once the backend is closed.
    pub fn put(&self, parts: C) -> Connection<C> {
        let connection = Connection {
            parts: Arc::new(parts),
            retired: CancellationToken::new(),
        };
        let mut kept = lock(&self.kept);
        // Under the lock, so that it is let go if the backend is closed after this.
        if !self.signal.is_closed() {
            kept.connection = Some(connection.clone());
        }
        connection
    }

    /// Uses `connection` for nothing new, because its server does not do well. See [`retirements`](Self::retirements).
    pub fn retire(&self, connection: &Connection<C>) {
        let mut kept = lock(&self.kept);
        if kept.take(connection) {
            kept.retirements += 1;
        }
    }

    /// Uses `connection` for nothing new, although its server does well: with newer credentials, for example.
    pub fn renew(&self, connection: &Connection<C>) {
        lock(&self.kept).take(connection);
    }

    /// How many connections were retired so far. A client with several servers connects to another one each time.
    pub fn retirements(&self) -> usize {
        lock(&self.kept).retirements
    }
}

impl<C> Kept<C> {
    /// Whether `connection` was the one in use. It is not any more.
    fn take(&mut self, connection: &Connection<C>) -> bool {
        let current = self.connection.as_ref();
        let is_current =
            current.is_some_and(|current| Arc::ptr_eq(&current.parts, &connection.parts));
        if is_current {
            self.connection = None;
            connection.retired.cancel();
        }
        is_current
    }
}

impl<C: Send + Sync> LetGo for Mutex<Kept<C>> {
    fn let_go(&self) {
        let connection = lock(self).connection.take();
        drop(connection);
    }
}

impl<C> Connection<C> {
    /// Returns when it is used for nothing new any more, unless the backend is closed. Cancel-safe.
    pub async fn retired(&self) {
        self.retired.cancelled().await;
    }

    /// Whether it is used for nothing new any more.
    pub fn is_retired(&self) -> bool {
        self.retired.is_cancelled()
    }
}

impl<C> Deref for Connection<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.parts
    }
}

impl<C> Clone for Connection<C> {
    fn clone(&self) -> Self {
        Self {
            parts: Arc::clone(&self.parts),
            retired: self.retired.clone(),
        }
    }
}

impl<C> fmt::Debug for Connection<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl<C> fmt::Debug for SharedConnection<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedConnection")
    }
}

/// Retires the connection of a request that is dropped before its answer has come, if it was under way for long enough: core gives up
/// sooner than a client's own limit, and a server that does not answer must not be asked for ever.
#[derive(Debug)]
pub struct Unanswered<'a, C: Send + Sync + 'static> {
    shared: &'a SharedConnection<C>,
    connection: Option<&'a Connection<C>>,
    since: Instant,
    suspect_after: Duration,
}

impl<'a, C: Send + Sync + 'static> Unanswered<'a, C> {
    /// A request goes out on `connection` now. One that is given up within `suspect_after` was only not wanted any more.
    pub fn new(
        shared: &'a SharedConnection<C>,
        connection: &'a Connection<C>,
        suspect_after: Duration,
    ) -> Self {
        Self {
            shared,
            connection: Some(connection),
            since: Instant::now(),
            suspect_after,
        }
    }

    /// It was answered, well or not.
    pub fn answered(mut self) {
        self.connection = None;
    }
}

impl<C: Send + Sync + 'static> Drop for Unanswered<'_, C> {
    fn drop(&mut self) {
        let is_overdue = self.since.elapsed() >= self.suspect_after;
        if let Some(connection) = self.connection.filter(|_| is_overdue) {
            self.shared.retire(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use futures_util::FutureExt;
    use sd_core::{Error, ErrorKind};
    use tokio::time::advance;

    use super::*;

    fn open() -> (CloseSignal, SharedConnection<u32>) {
        let signal = CloseSignal::new();
        let shared = SharedConnection::new(&signal);
        (signal, shared)
    }

    async fn get(shared: &SharedConnection<u32>, new: u32) -> u32 {
        *shared.get_or_connect(ready(Ok(new))).await.unwrap()
    }

    #[tokio::test]
    async fn a_connection_is_kept_until_it_is_retired_and_only_that_one() {
        let (_signal, shared) = open();
        let failed = Error::new(ErrorKind::Unavailable, "test");
        assert!(shared.get_or_connect(ready(Err(failed))).await.is_err());
        assert_eq!(get(&shared, 1).await, 1);
        assert_eq!(get(&shared, 2).await, 1);
        let first = shared.current().unwrap();
        shared.retire(&first);
        shared.retire(&first);
        assert!(first.is_retired() && shared.retirements() == 1);
        first.retired().await;
        assert_eq!(get(&shared, 2).await, 2);
        shared.retire(&first);
        let second = shared.current().unwrap();
        assert!(!second.is_retired());
        shared.renew(&second);
        assert!(shared.current().is_none() && shared.retirements() == 1);
    }

    #[tokio::test]
    async fn one_connects_at_a_time_and_those_who_wait_use_what_it_made() {
        let (_signal, shared) = open();
        let (made, connected) = tokio::sync::oneshot::channel();
        let mut first = Box::pin(shared.get_or_connect(async { Ok(connected.await.unwrap()) }));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(shared.get_or_connect(async { panic!("connects as well") }));
        assert!(second.as_mut().now_or_never().is_none());
        made.send(1).unwrap();
        assert_eq!((*first.await.unwrap(), *second.await.unwrap()), (1, 1));
    }

    #[tokio::test]
    async fn the_next_connects_if_who_connects_is_dropped() {
        let (_signal, shared) = open();
        let mut stuck = Box::pin(shared.get_or_connect(std::future::pending()));
        assert!(stuck.as_mut().now_or_never().is_none());
        let mut next = Box::pin(get(&shared, 2));
        assert!(next.as_mut().now_or_never().is_none());
        drop(stuck);
        assert_eq!(next.await, 2);
    }

    #[tokio::test]
    async fn nothing_is_kept_of_a_backend_that_is_closed() {
        let (signal, shared) = open();
        let sibling = SharedConnection::new(&signal.clone());
        let (one, two) = (shared.put(1), sibling.put(2));
        assert!(Arc::strong_count(&one.parts) == 2 && Arc::strong_count(&two.parts) == 2);
        signal.close();
        assert!(shared.current().is_none() && sibling.current().is_none());
        assert!(Arc::strong_count(&one.parts) == 1 && Arc::strong_count(&two.parts) == 1);
        assert_eq!(*shared.put(3), 3);
        assert!(shared.current().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_request_that_was_dropped_late_and_unanswered_counts_against_its_connection() {
        const SECOND: Duration = Duration::from_secs(1);
        let (_signal, shared) = open();
        let connection = shared.put(1);
        drop(Unanswered::new(&shared, &connection, SECOND));
        let request = Unanswered::new(&shared, &connection, SECOND);
        advance(SECOND).await;
        request.answered();
        assert!(!connection.is_retired());
        let request = Unanswered::new(&shared, &connection, SECOND);
        advance(SECOND).await;
        drop(request);
        assert!(connection.is_retired());
    }
}
