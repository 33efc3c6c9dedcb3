//! What a connection's incoming bytes tell before hyper says a word: hyper's handshake resolves before the server has said
//! anything, and a GOAWAY shows only at the next request.
//!
//! [`WatchedIo`] passes bytes through and reads the frame headers on the way: the first SETTINGS make a connection usable,
//! its stream limit bounds it, GOAWAY takes it out of the set at once, and every byte is a sign of life.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::cork::Cork;

/// What was seen on a connection, and the switch that ends it.
#[derive(Debug)]
pub(crate) struct Wire {
    bytes: AtomicU64,
    settings: AtomicBool,
    max_streams: AtomicU32,
    go_away: OnceLock<GoAway>,
    error: OnceLock<String>,
    closed: AtomicBool,
    reader: AtomicWaker,
}

/// The server asked us to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GoAway {
    code: u32,
    debug: String,
}

impl fmt::Display for GoAway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", h2::Reason::from(self.code))?;
        if !self.debug.is_empty() {
            write!(f, " ({})", self.debug)?;
        }
        Ok(())
    }
}

impl GoAway {
    /// Whether the server complains about keep-alive pings.
    pub(crate) fn too_many_pings(&self) -> bool {
        const ENHANCE_YOUR_CALM: u32 = 0xb;
        self.code == ENHANCE_YOUR_CALM && self.debug == "too_many_pings"
    }
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self {
            bytes: AtomicU64::new(0),
            settings: AtomicBool::new(false),
            max_streams: AtomicU32::new(u32::MAX),
            go_away: OnceLock::new(),
            error: OnceLock::new(),
            closed: AtomicBool::new(false),
            reader: AtomicWaker::new(),
        }
    }

    /// How many bytes the server has sent.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the server's SETTINGS have arrived.
    pub(crate) fn is_settled(&self) -> bool {
        self.settings.load(Ordering::Acquire)
    }

    /// How many streams the server allows at once.
    pub(crate) fn max_streams(&self) -> u32 {
        self.max_streams.load(Ordering::Relaxed)
    }

    /// What the server said when it asked us to go.
    pub(crate) fn go_away(&self) -> Option<&GoAway> {
        self.go_away.get()
    }

    /// Why reading or writing failed.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.get().map(String::as_str)
    }

    /// Ends the connection as if the server had closed it: hyper says goodbye and closes the socket.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.wake_reader();
    }

    /// Lets the reader look again.
    pub(crate) fn wake_reader(&self) {
        self.reader.wake();
    }
}

/// Passes bytes through and notes what they tell.
pub(crate) struct WatchedIo {
    io: Cork,
    wire: Arc<Wire>,
    frames: Frames,
}

impl WatchedIo {
    pub(crate) fn new(io: Cork, wire: Arc<Wire>) -> Self {
        Self {
            io,
            wire,
            frames: Frames::default(),
        }
    }

    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled {
            // Only the first error is the cause.
            let _ = self.wire.error.set(error.to_string());
        }
        polled
    }
}

impl AsyncRead for WatchedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.wire.closed.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        match &polled {
            Poll::Ready(Ok(())) => {
                if let Some(new) = buf.filled().get(before..) {
                    this.wire
                        .bytes
                        .fetch_add(new.len() as u64, Ordering::Relaxed);
                    this.frames.read(new, &this.wire);
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                this.wire.reader.register(cx.waker());
                if this.wire.closed.load(Ordering::SeqCst) {
                    return Poll::Ready(Ok(()));
                }
            }
        }
        this.note(polled)
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.note(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

const HEADER_BYTES: usize = 9;
const SETTINGS: u8 = 0x4;
const GO_AWAY: u8 = 0x7;
const ACK: u8 = 0x1;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
/// More of a frame than this is not looked at. SETTINGS and GOAWAY are a few dozen bytes.
const KEPT_BYTES: usize = 1024;

/// A reader of frame headers that takes bytes in chunks of any size (RFC 9113, section 4.1).
#[derive(Debug, Default)]
struct Frames {
    header: [u8; HEADER_BYTES],
    filled: usize,
    left: usize,
    payload: Vec<u8>,
}

impl Frames {
    fn read(&mut self, mut bytes: &[u8], wire: &Wire) {
        while !bytes.is_empty() {
            let taken = if self.filled < HEADER_BYTES {
                let taken = bytes.len().min(HEADER_BYTES - self.filled);
                for (to, from) in self.header.iter_mut().skip(self.filled).zip(bytes) {
                    *to = *from;
                }
                self.filled += taken;
                let [a, b, c, ..] = self.header;
                self.left = u32::from_be_bytes([0, a, b, c]) as usize;
                taken
            } else {
                let taken = bytes.len().min(self.left);
                if matches!(self.kind(), SETTINGS | GO_AWAY) {
                    let room = KEPT_BYTES.saturating_sub(self.payload.len());
                    self.payload.extend(bytes.iter().take(taken.min(room)));
                }
                self.left -= taken;
                taken
            };
            if self.filled == HEADER_BYTES && self.left == 0 {
                self.finish(wire);
            }
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    fn kind(&self) -> u8 {
        self.header[3]
    }

    fn finish(&mut self, wire: &Wire) {
        match self.kind() {
            SETTINGS if self.header[4] & ACK == 0 => {
                for setting in self.payload.as_chunks::<6>().0 {
                    let [id @ .., a, b, c, d] = *setting;
                    if u16::from_be_bytes(id) == MAX_CONCURRENT_STREAMS {
                        let limit = u32::from_be_bytes([a, b, c, d]);
                        wire.max_streams.store(limit, Ordering::Relaxed);
                    }
                }
                wire.settings.store(true, Ordering::Release);
            }
            GO_AWAY => {
                if let [_, _, _, _, a, b, c, d, debug @ ..] = self.payload.as_slice() {
                    // Of several GOAWAYs the first one counts: since then nothing new may be sent.
                    let _ = wire.go_away.set(GoAway {
                        code: u32::from_be_bytes([*a, *b, *c, *d]),
                        debug: String::from_utf8_lossy(debug).into_owned(),
                    });
                }
            }
            _ => {}
        }
        self.payload.clear();
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 0];
        frame.extend(payload);
        frame
    }

    fn conversation() -> Vec<u8> {
        let mut bytes = frame(SETTINGS, 0, &[0, 4, 0, 1, 0, 0, 0, 3, 0, 0, 0, 7]);
        bytes.extend(frame(SETTINGS, ACK, &[]));
        bytes.extend(frame(0, 0, &[7; 5_000]));
        let mut go_away = vec![0, 0, 0, 9, 0, 0, 0, 0xb];
        go_away.extend(b"too_many_pings");
        bytes.extend(frame(GO_AWAY, 0, &go_away));
        bytes
    }

    proptest! {
        #[test]
        fn reads_settings_and_go_away_however_the_bytes_are_cut(cuts in prop::collection::vec(1..700usize, 0..40)) {
            let (wire, mut frames) = (Wire::new(), Frames::default());
            let bytes = conversation();
            let mut rest = bytes.as_slice();
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                frames.read(chunk, &wire);
                rest = after;
            }
            frames.read(rest, &wire);
            prop_assert!(wire.is_settled());
            prop_assert_eq!(wire.max_streams(), 7);
            prop_assert!(wire.go_away().unwrap().too_many_pings());
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..4_000)) {
            let mut frames = Frames::default();
            frames.read(&bytes, &Wire::new());
            prop_assert!(frames.payload.len() <= KEPT_BYTES);
        }
    }

    #[test]
    fn an_acknowledgement_is_no_settings() {
        let wire = Wire::new();
        Frames::default().read(&frame(SETTINGS, ACK, &[]), &wire);
        assert!(!wire.is_settled());
    }
}
