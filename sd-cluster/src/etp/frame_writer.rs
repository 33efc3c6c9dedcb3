//! Writes frames. A large payload is written from where it is, without a copy: the list that a thousand readers are sent is in memory
//! once, however slowly they take it.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tungstenite::protocol::Role;

use crate::etp::frame::{Frame, FrameCodec, FrameError, ROOM};

/// Writes the frames of one end. What a dropped call has begun, the next one goes on with, so that no frame is broken.
#[derive(Debug)]
pub(crate) struct FrameWriter<W> {
    writes: W,
    codec: FrameCodec,
    /// What is to be written first.
    head: BytesMut,
    /// The payload behind it, if that was not copied.
    payload: Bytes,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes the frames of the end `role`, whose messages its caller bounds.
    pub(crate) fn new(writes: W, role: Role) -> Self {
        Self {
            writes,
            codec: FrameCodec::new(role, usize::MAX),
            head: BytesMut::new(),
            payload: Bytes::new(),
        }
    }

    /// Writes a frame behind all that was begun before.
    ///
    /// # Cancel safety
    /// A frame is written whole or not at all, if there is another call.
    ///
    /// # Errors
    /// The stream fails.
    pub(crate) async fn send(&mut self, frame: Frame) -> Result<(), FrameError> {
        self.flush().await?;
        self.payload = self.codec.write(frame, &mut self.head)?;
        self.flush().await
    }

    /// Whether all that was begun is written.
    pub(crate) fn is_done(&self) -> bool {
        self.head.is_empty() && self.payload.is_empty()
    }

    /// The stream. What was begun and is not written yet is lost.
    pub(crate) fn into_inner(self) -> W {
        self.writes
    }

    async fn flush(&mut self) -> Result<(), FrameError> {
        self.writes.write_all_buf(&mut self.head).await?;
        self.writes.write_all_buf(&mut self.payload).await?;
        self.writes.flush().await?;
        self.payload = Bytes::new();
        // A large message that was copied leaves a large buffer behind.
        if self.head.capacity() > ROOM {
            self.head = BytesMut::new();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, duplex};
    use tokio_util::codec::Decoder;

    use super::*;
    use crate::etp::message::MOST_BYTES;

    /// All frames that come over `stream` until it ends.
    async fn frames(role: Role, mut stream: impl tokio::io::AsyncRead + Unpin) -> Vec<Frame> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let mut source = BytesMut::from(&bytes[..]);
        let mut codec = FrameCodec::new(role, MOST_BYTES);
        let frames = std::iter::from_fn(|| codec.decode(&mut source).unwrap());
        frames.collect()
    }

    #[tokio::test]
    async fn what_a_dropped_call_has_begun_the_next_one_goes_on_with() {
        for (ours, theirs) in [(Role::Server, Role::Client), (Role::Client, Role::Server)] {
            let (near, reads) = duplex(1000);
            let mut writer = FrameWriter::new(near, ours);
            let large = Frame::Message(Bytes::from(vec![b'x'; 3 * ROOM]));
            assert!(writer.send(large.clone()).now_or_never().is_none());
            assert!(!writer.is_done());
            let small = Frame::Message(Bytes::from_static(b"small"));
            let sending = async {
                writer.send(small.clone()).await.unwrap();
                assert!(writer.is_done());
                drop(writer);
            };
            let (got, ()) = tokio::join!(frames(theirs, reads), sending);
            assert_eq!(got, [large, small]);
        }
    }

    #[tokio::test]
    async fn a_server_copies_no_large_payload_and_keeps_none_that_is_written() {
        let (near, mut reads) = duplex(1000);
        let mut writer = FrameWriter::new(near, Role::Server);
        let payload = Bytes::from(vec![b'x'; 3 * ROOM]);
        let sending = writer.send(Frame::Message(payload.clone()));
        assert!(sending.now_or_never().is_none());
        assert!(writer.head.capacity() < 100, "{}", writer.head.capacity());
        let mut rest = vec![0; 4 * ROOM];
        let reading = async { while reads.read(&mut rest).await.unwrap() > 0 {} };
        let flushing = async {
            writer.flush().await.unwrap();
            assert!(payload.is_unique());
            drop(writer);
        };
        tokio::join!(reading, flushing);
    }
}
