//! What a connection's bytes tell before or beyond what h2 says: h2 shows neither the server's header limit nor a GOAWAY before
//! the next request, nor whether a request has left.
//!
//! [`WatchedIo`] passes bytes through and reads the frame headers on the way. The first SETTINGS make a connection usable, GOAWAY
//! takes it out of the set at once, and what was written says which requests no server can have seen.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use sd_core::Printable;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connector::BoxedIo;
use crate::frames::{Frame, Frames, kind};

/// What was seen on a connection.
#[derive(Debug)]
pub(crate) struct Wire {
    /// Bytes of frames that only a server at work sends.
    life: AtomicU64,
    settings: AtomicBool,
    max_streams: AtomicU32,
    max_header_list: AtomicU32,
    answered: AtomicBool,
    /// The stream of the latest header block that came.
    last_headers: AtomicU32,
    /// The newest stream of which something was written.
    last_written: AtomicU32,
    go_away: OnceLock<GoAway>,
    error: OnceLock<String>,
    /// What the server speaks if that is not HTTP/2.
    language: OnceLock<&'static str>,
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
            write!(f, " ({})", Printable(&self.debug))?;
        }
        Ok(())
    }
}

impl GoAway {
    /// Whether the server complains about keep-alive pings.
    pub(crate) fn too_many_pings(&self) -> bool {
        h2::Reason::from(self.code) == h2::Reason::ENHANCE_YOUR_CALM
            && self.debug == "too_many_pings"
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_polite(&self) -> bool {
        h2::Reason::from(self.code) == h2::Reason::NO_ERROR
    }
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self {
            life: AtomicU64::new(0),
            settings: AtomicBool::new(false),
            max_streams: AtomicU32::new(u32::MAX),
            max_header_list: AtomicU32::new(u32::MAX),
            answered: AtomicBool::new(false),
            last_headers: AtomicU32::new(0),
            last_written: AtomicU32::new(0),
            go_away: OnceLock::new(),
            error: OnceLock::new(),
            language: OnceLock::new(),
        }
    }

    /// Grows with every sign that the server works on something. PING and frames of no meaning are none.
    pub(crate) fn life(&self) -> u64 {
        self.life.load(Ordering::Relaxed)
    }

    /// Whether the server's SETTINGS have arrived.
    pub(crate) fn is_settled(&self) -> bool {
        self.settings.load(Ordering::Acquire)
    }

    /// How many streams the server allows at once.
    pub(crate) fn max_streams(&self) -> u32 {
        self.max_streams.load(Ordering::Relaxed)
    }

    /// How large a list of headers the server takes.
    pub(crate) fn max_header_list(&self) -> u32 {
        self.max_header_list.load(Ordering::Relaxed)
    }

    /// Whether the server has answered a request.
    pub(crate) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// The stream whose headers came last, also if they are incomplete.
    pub(crate) fn last_headers(&self) -> u32 {
        self.last_headers.load(Ordering::Relaxed)
    }

    /// Whether anything of this stream was given to the socket.
    pub(crate) fn was_written(&self, stream: u32) -> bool {
        stream <= self.last_written.load(Ordering::Relaxed)
    }

    /// What the server said when it asked us to go.
    pub(crate) fn go_away(&self) -> Option<&GoAway> {
        self.go_away.get()
    }

    /// What the server speaks if that is not HTTP/2.
    pub(crate) fn language(&self) -> Option<&'static str> {
        self.language.get().copied()
    }

    /// Notes the language of the first bytes.
    fn greeted(&self, bytes: &[u8]) {
        /// The types of an alert and a handshake, and the first byte of the version.
        const TLS: [[u8; 2]; 2] = [[21, 3], [22, 3]];
        if bytes.starts_with(b"HTTP/1") {
            let _ = self.language.set("HTTP/1");
        } else if TLS.iter().any(|start| bytes.starts_with(start)) {
            let _ = self.language.set("TLS");
        }
    }

    /// Why reading or writing failed.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.get().map(String::as_str)
    }

    fn read(&self, frame: &Frame<'_>) {
        match *frame {
            Frame::Begun { kind, stream } => {
                if kind == kind::HEADERS {
                    self.last_headers.store(stream, Ordering::Relaxed);
                    self.answered.store(true, Ordering::Relaxed);
                }
            }
            Frame::Part { kind, length } => {
                let is_life = kind <= kind::CONTINUATION && kind != kind::PING;
                if is_life {
                    self.life.fetch_add(length as u64, Ordering::Relaxed);
                }
            }
            Frame::Settings(settings) => {
                for setting in settings.as_chunks::<6>().0 {
                    let [id @ .., a, b, c, d] = *setting;
                    let value = u32::from_be_bytes([a, b, c, d]);
                    match u16::from_be_bytes(id) {
                        MAX_CONCURRENT_STREAMS => {
                            self.max_streams.store(value, Ordering::Relaxed);
                        }
                        MAX_HEADER_LIST_SIZE => {
                            self.max_header_list.store(value, Ordering::Relaxed);
                        }
                        _ => {}
                    }
                }
                self.settings.store(true, Ordering::Release);
            }
            Frame::GoAway { code, debug } => {
                // Of several GOAWAYs the first one counts: since then nothing new may be sent.
                let _ = self.go_away.set(GoAway {
                    code,
                    debug: String::from_utf8_lossy(debug).into_owned(),
                });
            }
        }
    }

    fn written(&self, frame: &Frame<'_>) {
        if let Frame::Begun { kind, stream } = *frame
            && kind == kind::HEADERS
        {
            // h2 opens streams in the order of their numbers.
            self.last_written.store(stream, Ordering::Relaxed);
        }
    }
}

const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;

/// Passes bytes through and notes what they tell.
pub(crate) struct WatchedIo {
    io: BoxedIo,
    wire: Arc<Wire>,
    incoming: Frames,
    outgoing: Frames,
    has_greeted: bool,
}

impl WatchedIo {
    pub(crate) fn new(io: BoxedIo, wire: Arc<Wire>) -> Self {
        Self {
            io,
            wire,
            incoming: Frames::of_a_server(),
            outgoing: Frames::of_a_client(),
            has_greeted: false,
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
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        if polled.is_ready()
            && let Some(new) = buf.filled().get(before..)
        {
            if !std::mem::replace(&mut this.has_greeted, true) {
                this.wire.greeted(new);
            }
            this.incoming.feed(new, |frame| this.wire.read(&frame));
        }
        this.note(polled)
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(mut written)) = polled {
            for buf in bufs {
                let (now, _) = buf.split_at(written.min(buf.len()));
                this.outgoing.feed(now, |frame| this.wire.written(&frame));
                written -= now.len();
            }
        }
        this.note(polled)
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const HEADERS_OF_5: [u8; 12] = [0, 0, 3, 1, 4, 0, 0, 0, 5, 1, 2, 3];

    #[tokio::test]
    async fn a_stream_counts_as_written_when_its_headers_begin_to_leave() {
        let (ours, _theirs) = duplex(1024);
        let wire = Arc::new(Wire::new());
        let mut io = WatchedIo::new(Box::new(ours), Arc::clone(&wire));
        io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        assert!(!wire.was_written(5));
        io.write_all(&HEADERS_OF_5[..9]).await.unwrap();
        assert!(wire.was_written(5) && !wire.was_written(7));
    }

    #[tokio::test]
    async fn pings_and_unknown_frames_are_no_sign_of_life() {
        let (ours, mut theirs) = duplex(1024);
        let wire = Arc::new(Wire::new());
        let mut io = WatchedIo::new(Box::new(ours), Arc::clone(&wire));
        theirs
            .write_all(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
            .await
            .unwrap();
        theirs
            .write_all(&[0, 0, 1, 0xbe, 0, 0, 0, 0, 0, 1])
            .await
            .unwrap();
        io.read_exact(&mut [0; 27]).await.unwrap();
        assert_eq!(wire.life(), 0);
        theirs.write_all(&HEADERS_OF_5).await.unwrap();
        io.read_exact(&mut [0; 12]).await.unwrap();
        assert!(wire.life() > 0 && wire.has_answered());
        assert_eq!(wire.last_headers(), 5);
    }
}
