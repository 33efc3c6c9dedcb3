//! Signs of life of a peer: bytes that move, whether or not they are a whole message yet. A message of 4 MiB takes longer over a slow
//! link than a peer may be silent.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use sd_core::sync::lock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// When the peer showed last that it lives.
#[derive(Debug)]
pub(crate) struct Signs(Mutex<Instants>);

#[derive(Clone, Copy, Debug)]
struct Instants {
    /// Bytes came.
    came: Instant,
    /// Bytes went that had waited for room.
    went: Instant,
}

impl Signs {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self(Mutex::new(Instants {
            came: now,
            went: now,
        }))
    }

    /// When there was a sign of any kind.
    pub(crate) fn last(&self) -> Instant {
        let instants = *lock(&self.0);
        instants.came.max(instants.went)
    }

    /// When the peer took what had waited for room.
    pub(crate) fn taken(&self) -> Instant {
        lock(&self.0).went
    }

    /// Something came.
    pub(crate) fn came(&self) {
        lock(&self.0).came = Instant::now();
    }

    fn went(&self) {
        lock(&self.0).went = Instant::now();
    }
}

/// A stream that notes signs of life.
#[derive(Debug)]
pub(crate) struct Noting<S> {
    stream: S,
    /// What was read before, and comes first.
    read: BytesMut,
    signs: Arc<Signs>,
    is_full: bool,
}

impl<S> Noting<S> {
    /// A stream of which `read` came already.
    pub(crate) fn new(stream: S, read: BytesMut, signs: Arc<Signs>) -> Self {
        Self {
            stream,
            read,
            signs,
            is_full: false,
        }
    }

    /// Notes that the peer took something, if something had waited for that. What the system takes at once is no sign: it has room for
    /// a peer that is gone, too. A write that fails is none either.
    fn note_written<T>(&mut self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if self.is_full && matches!(written, Poll::Ready(Ok(_))) {
            self.signs.went();
        }
        self.is_full = written.is_pending();
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noting<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.has_remaining() {
            let fits = self.read.len().min(buf.remaining());
            buf.put_slice(&self.read.split_to(fits));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.signs.came();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noting<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_written(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.note_written(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::{advance, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_that_come_are_a_sign_and_those_that_the_system_has_room_for_are_none() {
        let signs = Arc::new(Signs::new());
        let (ours, mut peer) = duplex(4);
        let mut ours = Noting::new(ours, BytesMut::from(&b"early"[..]), Arc::clone(&signs));
        let began = signs.last();
        advance(Duration::from_secs(1)).await;
        let mut early = [0; 5];
        ours.read_exact(&mut early).await.unwrap();
        assert_eq!((&early, signs.last()), (b"early", began));
        ours.write_all(b"1234").await.unwrap();
        assert_eq!(signs.last(), began);
        let full = timeout(Duration::from_secs(1), ours.write_all(b"5")).await;
        assert!(full.is_err() && signs.last() == began);

        peer.read_u8().await.unwrap();
        ours.write_all(b"5").await.unwrap();
        assert_eq!(signs.taken(), Instant::now());
        advance(Duration::from_secs(1)).await;
        peer.write_u8(0).await.unwrap();
        ours.read_u8().await.unwrap();
        assert!(signs.last() > signs.taken());
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_fails_is_no_sign() {
        let signs = Arc::new(Signs::new());
        let (ours, peer) = duplex(4);
        let mut ours = Noting::new(ours, BytesMut::new(), Arc::clone(&signs));
        let began = signs.last();
        ours.write_all(b"1234").await.unwrap();
        let full = timeout(Duration::from_secs(1), ours.write_all(b"5")).await;
        full.unwrap_err();
        drop(peer);
        ours.write_all(b"5").await.unwrap_err();
        assert_eq!(signs.last(), began);
    }
}
