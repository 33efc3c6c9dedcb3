//! A connection that ends when its peer reads nothing for too long.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A connection whose writes fail with `TimedOut` once its peer has taken nothing for `limit`. Reading waits without a limit.
///
/// A server that streams needs it below HTTP: while a connection takes nothing, the body of an answer is not asked for more, so that it
/// cannot keep a deadline itself.
#[derive(Debug)]
pub struct WriteDeadline<C> {
    connection: C,
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
    /// Whether a write waits, and `sleep` runs since it began.
    waiting: bool,
}

impl<C> WriteDeadline<C> {
    /// Limits how long a write to `connection` waits without any progress.
    pub fn new(connection: C, limit: Duration) -> Self {
        Self {
            connection,
            limit,
            sleep: Box::pin(sleep(limit)),
            waiting: false,
        }
    }

    /// The connection.
    pub fn get_ref(&self) -> &C {
        &self.connection
    }

    fn within<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = false;
            return written;
        }
        if !self.waiting {
            self.waiting = true;
            let at = Instant::now().checked_add(self.limit);
            if let Some(at) = at {
                self.sleep.as_mut().reset(at);
            }
        }
        ready!(self.sleep.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the peer has read nothing for {:?}", self.limit),
        )))
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for WriteDeadline<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(cx, buffer)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for WriteDeadline<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write(cx, bytes);
        self.within(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write_vectored(cx, slices);
        self.within(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.connection).poll_flush(cx);
        if flushed.is_ready() {
            // What was written went on: a flush of a plain socket says nothing of the peer.
            return flushed;
        }
        self.within(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.connection).poll_shutdown(cx);
        self.within(cx, closed)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_ends_the_connection_after_the_limit() {
        let (ours, _theirs) = duplex(4);
        let mut ours = WriteDeadline::new(ours, LIMIT);
        let begin = Instant::now();
        let error = ours.write_all(b"more than fits").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begin.elapsed().as_secs(), LIMIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_slowly_is_served_for_longer_than_the_limit() {
        let (ours, mut theirs) = duplex(1);
        let mut ours = WriteDeadline::new(ours, LIMIT);
        let reader = tokio::spawn(async move {
            let mut read = Vec::new();
            while let Ok(byte) = theirs.read_u8().await {
                read.push(byte);
                sleep(LIMIT * 9 / 10).await;
            }
            read
        });
        let begin = Instant::now();
        ours.write_all(b"slow").await.unwrap();
        sleep(LIMIT * 2).await;
        ours.write_all(b"er").await.unwrap();
        drop(ours);
        assert_eq!(reader.await.unwrap(), b"slower");
        assert!(begin.elapsed() > LIMIT * 4);
    }
}
