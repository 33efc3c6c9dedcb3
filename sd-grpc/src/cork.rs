//! Gathers what hyper writes while a connection's task runs, and sends it when the task has nothing left to do.
//!
//! hyper hands out the headers of a call before it lets its message follow, each with a flush: two segments and two system
//! calls for a unary call. All of a connection's futures run in one task, so nothing is delayed by waiting for its end.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use sd_core::sync::lock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connector::BoxedIo;

/// Larger writes are not copied: they go out at once, after what was gathered.
const LARGEST: usize = 4 * 1024;
/// More than this is not gathered.
const FULL: usize = 32 * 1024;

/// A socket whose small writes wait for [`poll_send`](Self::poll_send). Clones share it.
#[derive(Clone)]
pub(crate) struct Cork(Arc<Mutex<Corked>>);

struct Corked {
    io: BoxedIo,
    gathered: BytesMut,
    /// Something was written since the socket was flushed.
    dirty: bool,
    /// The task that waits for the socket. The socket wakes only the last one that waits, so the others are woken from here.
    blocked: Option<Waker>,
    /// Sending failed when no writer was there to be told.
    failed: Option<io::Error>,
}

impl Cork {
    pub(crate) fn new(io: BoxedIo) -> Self {
        Self(Arc::new(Mutex::new(Corked {
            io,
            gathered: BytesMut::new(),
            dirty: false,
            blocked: None,
            failed: None,
        })))
    }

    /// Only the connection's own task comes here: the lock is always free.
    fn lock(&self) -> MutexGuard<'_, Corked> {
        lock(&self.0)
    }

    /// Sends what was gathered. The next read or write returns a failure; `false` says that there is one.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut corked = self.lock();
        match ready!(corked.poll_send(cx)) {
            Ok(()) => Poll::Ready(true),
            Err(error) => {
                corked.failed = Some(error);
                Poll::Ready(false)
            }
        }
    }
}

impl Corked {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gathered.is_empty() && !self.dirty {
            return Poll::Ready(Ok(()));
        }
        while !self.gathered.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(sent);
        }
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.dirty = false;
        if let Some(blocked) = self.blocked.take() {
            blocked.wake();
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when `more` bytes may be gathered.
    fn poll_room(&mut self, cx: &mut Context<'_>, more: usize) -> Poll<io::Result<()>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        if self.gathered.len() + more <= FULL && more <= LARGEST {
            return Poll::Ready(Ok(()));
        }
        let polled = self.poll_send(cx);
        self.remember(cx, &polled);
        polled
    }

    fn remember<T>(&mut self, cx: &Context<'_>, polled: &Poll<T>) {
        if polled.is_pending() {
            self.blocked = Some(cx.waker().clone());
        }
    }
}

impl AsyncRead for Cork {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut corked = self.lock();
        if let Some(error) = corked.failed.take() {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut corked.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cork {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut corked = self.lock();
        ready!(corked.poll_room(cx, buf.len()))?;
        corked.dirty = true;
        if buf.len() > LARGEST {
            let polled = Pin::new(&mut corked.io).poll_write(cx, buf);
            corked.remember(cx, &polled);
            return polled;
        }
        corked.gathered.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut corked = self.lock();
        let len = bufs.iter().map(|buf| buf.len()).sum();
        ready!(corked.poll_room(cx, len))?;
        corked.dirty = true;
        if len > LARGEST {
            let polled = Pin::new(&mut corked.io).poll_write_vectored(cx, bufs);
            corked.remember(cx, &polled);
            return polled;
        }
        for buf in bufs {
            corked.gathered.extend_from_slice(buf);
        }
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().io.is_write_vectored()
    }

    /// Flushing waits for the end of the task's turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.lock().failed.take().map_or(Ok(()), Err))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut corked = self.lock();
        let sent = corked.poll_send(cx);
        corked.remember(cx, &sent);
        ready!(sent)?;
        Pin::new(&mut corked.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    async fn send(cork: &Cork) -> bool {
        poll_fn(|cx| cork.poll_send(cx)).await
    }

    #[tokio::test]
    async fn small_writes_leave_together_at_the_end_of_the_turn() {
        let (ours, mut theirs) = duplex(FULL);
        let mut cork = Cork::new(Box::new(ours));
        cork.write_all(b"headers, ").await.unwrap();
        cork.flush().await.unwrap();
        cork.write_all(b"message").await.unwrap();
        cork.flush().await.unwrap();
        let mut seen = [0; 64];
        let early = poll_fn(|cx| {
            let mut seen = ReadBuf::new(&mut seen);
            Poll::Ready(Pin::new(&mut theirs).poll_read(cx, &mut seen).is_ready())
        });
        assert!(!early.await, "bytes left before the end of the turn");
        assert!(send(&cork).await);
        let len = theirs.read(&mut seen).await.unwrap();
        assert_eq!(&seen[..len], b"headers, message");
    }

    #[tokio::test]
    async fn order_is_kept_however_large_the_writes_are() {
        let (ours, mut theirs) = duplex(1024);
        let mut cork = Cork::new(Box::new(ours));
        let sizes = [10, LARGEST, LARGEST + 1, 3, 2 * FULL, 7];
        let expected: Vec<u8> = (0_u8..)
            .zip(sizes)
            .flat_map(|(byte, size)| vec![byte; size])
            .collect();
        let reading = tokio::spawn(async move {
            let mut seen = Vec::new();
            theirs.read_to_end(&mut seen).await.map(|_| seen)
        });
        for (byte, size) in (0_u8..).zip(sizes) {
            cork.write_all(&vec![byte; size]).await.unwrap();
        }
        cork.shutdown().await.unwrap();
        drop(cork);
        assert!(reading.await.unwrap().unwrap() == expected);
    }

    #[tokio::test]
    async fn who_found_no_room_goes_on_when_the_task_has_sent() {
        let (ours, mut theirs) = duplex(16);
        let mut cork = Cork::new(Box::new(ours));
        let turns = cork.clone();
        let writing = tokio::spawn(async move {
            for _ in 0..3 * FULL / LARGEST {
                cork.write_all(&[1; LARGEST]).await.unwrap();
            }
        });
        let sending = tokio::spawn(poll_fn::<(), _>(move |cx| {
            // As the connection's task: sends whenever it is polled, and is polled when the socket has room.
            let _ = turns.poll_send(cx);
            Poll::Pending
        }));
        let mut seen = vec![0; 2 * FULL];
        theirs.read_exact(&mut seen).await.unwrap();
        drop(theirs);
        sending.abort();
        writing.abort();
    }

    #[tokio::test]
    async fn a_shutdown_that_found_no_room_goes_on_when_the_task_has_sent() {
        let (ours, mut theirs) = duplex(4);
        let mut cork = Cork::new(Box::new(ours));
        cork.write_all(b"last words").await.unwrap();
        let mut shutdown = tokio_test::task::spawn({
            let mut cork = cork.clone();
            async move { cork.shutdown().await }
        });
        assert!(shutdown.poll().is_pending());
        // The end of the turn: from here on the socket wakes only the task.
        let mut turn = tokio_test::task::spawn(poll_fn(|cx| cork.poll_send(cx)));
        assert!(turn.poll().is_pending());
        let mut seen = [0; 10];
        let reading = theirs.read_exact(&mut seen);
        let (read, sent) = tokio::join!(reading, turn);
        assert!(sent && read.is_ok());
        assert!(shutdown.is_woken());
        shutdown.await.unwrap();
        assert_eq!(&seen, b"last words");
    }

    #[tokio::test]
    async fn a_failure_to_send_is_told_to_the_next_reader() {
        let (ours, theirs) = duplex(16);
        let mut cork = Cork::new(Box::new(ours));
        cork.write_all(b"lost").await.unwrap();
        drop(theirs);
        assert!(!send(&cork).await);
        assert!(cork.read_u8().await.is_err());
    }
}
