//! What a connection's bytes tell before or beyond what h2 says: h2 shows neither the server's header limit nor a GOAWAY before
//! the next request, nor whether a request has left.
//!
//! [`WatchedIo`] passes bytes through and reads the frame headers on the way. The first SETTINGS make a connection usable, GOAWAY
//! takes it out of the set at once, and what was written says which requests no server can have seen.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use sd_core::Printable;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connector::BoxedIo;
use crate::frames::{Frame, Frames, kind};

/// What was seen on a connection.
#[derive(Debug)]
pub(crate) struct Wire {
    /// Bytes of all frames but PING and those of an unknown kind.
    life: AtomicU64,
    /// Frames of headers and data.
    answers: AtomicU64,
    settings: AtomicBool,
    max_streams: AtomicU32,
    max_header_list: AtomicU32,
    answered: AtomicBool,
    /// How many bytes of responses may have come without being read.
    window: u32,
    /// How many have.
    unread: AtomicI64,
    /// How much of the window the server was not told of yet.
    untold: AtomicU32,
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
    /// Of a connection whose window is to be so large.
    pub(crate) fn new(window: u32) -> Self {
        Self {
            life: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            settings: AtomicBool::new(false),
            max_streams: AtomicU32::new(u32::MAX),
            max_header_list: AtomicU32::new(u32::MAX),
            answered: AtomicBool::new(false),
            window,
            unread: AtomicI64::new(0),
            untold: AtomicU32::new(window.saturating_sub(FIRST_WINDOW)),
            last_headers: AtomicU32::new(0),
            last_written: AtomicU32::new(0),
            go_away: OnceLock::new(),
            error: OnceLock::new(),
            language: OnceLock::new(),
        }
    }

    /// Grows with every sign that the server works. Frames of PING and of an unknown kind are no such sign.
    pub(crate) fn life(&self) -> u64 {
        self.life.load(Ordering::Relaxed)
    }

    /// How many frames of headers and data the server has sent.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
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

    /// Whether so much was not read that the server can hardly send more.
    pub(crate) fn is_full(&self) -> bool {
        let most = self.window - self.window / 16;
        self.unread.load(Ordering::Relaxed) > i64::from(most)
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
            Frame::Begun {
                kind: kind::HEADERS,
                stream,
                ..
            } => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                self.last_headers.store(stream, Ordering::Relaxed);
                self.answered.store(true, Ordering::Relaxed);
            }
            Frame::Begun {
                kind: kind::DATA,
                length,
                ..
            } => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                // A frame has at most 2^24 bytes.
                let length = i64::try_from(length).unwrap_or(i64::MAX);
                self.unread.fetch_add(length, Ordering::Relaxed);
            }
            Frame::Begun { .. } | Frame::ConnectionWindow(_) => {}
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
        match *frame {
            // h2 opens streams in the order of their numbers.
            Frame::Begun {
                kind: kind::HEADERS,
                stream,
                ..
            } => self.last_written.store(stream, Ordering::Relaxed),
            Frame::ConnectionWindow(more) => {
                // What first makes the window as large as it is to be gives nothing back.
                let untold = self.untold.load(Ordering::Relaxed);
                let still_untold = untold.saturating_sub(more);
                self.untold.store(still_untold, Ordering::Relaxed);
                let read = more.saturating_sub(untold);
                self.unread.fetch_sub(i64::from(read), Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

/// The window of a connection before anything is said (RFC 9113, section 6.9.2).
const FIRST_WINDOW: u32 = 65_535;
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
        let wire = Arc::new(Wire::new(1 << 20));
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
        let wire = Arc::new(Wire::new(1 << 20));
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
        theirs
            .write_all(&[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1])
            .await
            .unwrap();
        io.read_exact(&mut [0; 13]).await.unwrap();
        assert_eq!((wire.life(), wire.answers()), (13, 0), "a window update");
        theirs.write_all(&HEADERS_OF_5).await.unwrap();
        io.read_exact(&mut [0; 12]).await.unwrap();
        assert!(wire.life() > 13 && wire.has_answered());
        theirs
            .write_all(&[0, 0, 1, 0, 0, 0, 0, 0, 5, 1])
            .await
            .unwrap();
        io.read_exact(&mut [0; 10]).await.unwrap();
        assert_eq!(wire.answers(), 2, "headers and data");
        assert_eq!(wire.last_headers(), 5);
    }

    #[tokio::test]
    async fn what_was_not_read_fills_the_window_until_the_server_is_told_of_more() {
        const WINDOW: u32 = 80_000;
        let (ours, mut theirs) = duplex(1 << 20);
        let wire = Arc::new(Wire::new(WINDOW));
        let mut io = WatchedIo::new(Box::new(ours), Arc::clone(&wire));
        let update = [0, 0, 4, 8, 0, 0, 0, 0, 0];
        let more = |bytes: u32| [&update[..], &bytes.to_be_bytes()].concat();
        io.write_all(&[b'x'; 24]).await.unwrap();
        io.write_all(&more(WINDOW - FIRST_WINDOW)).await.unwrap();
        let data = [&[0, 0x27, 0x10, 0, 0, 0, 0, 0, 1][..], &[0; 10_000]].concat();
        for full in [false, false, false, false, false, false, false, true] {
            assert!(!wire.is_full());
            theirs.write_all(&data).await.unwrap();
            io.read_exact(&mut vec![0; data.len()]).await.unwrap();
            assert_eq!(wire.is_full(), full);
        }
        io.write_all(&more(10_000)).await.unwrap();
        assert!(!wire.is_full());
    }
}
