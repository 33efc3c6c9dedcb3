//! Frames of WebSocket (RFC 6455), as a codec for `tokio_util`.
//!
//! Headers are read and written by `tungstenite`. Its own stream is not used, for three reasons: at TRACE it logs the messages, which
//! hold configurations with their secrets; it ends a connection on text that is not UTF-8, which peers in Go pass on; and it tells a
//! peer that sends too much no reason.

use std::io::{self, Cursor};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::Decoder;
use tungstenite::protocol::Role;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The longest payload of a ping, a pong or a close.
const MOST_CONTROL_BYTES: u64 = 125;
/// How much room is made at once for a message of which only the length is there, and how much is kept behind a larger one.
pub(crate) const ROOM: usize = 64 * 1024;

/// What travels over a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A whole message. Text and binary ones are alike, and neither need be UTF-8.
    Message(Bytes),
    Ping(Bytes),
    Pong(Bytes),
    /// `None` if the peer gives no code.
    Close(Option<Close>),
}

/// Why an end closes a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) code: u16,
    pub(crate) reason: Bytes,
}

impl Close {
    /// All is well.
    pub(crate) const NORMAL: u16 = 1000;
    /// What was sent breaks the rules of WebSocket.
    pub(crate) const PROTOCOL: u16 = 1002;
    /// A message was too large.
    pub(crate) const TOO_LARGE: u16 = 1009;
    /// There is no room now.
    pub(crate) const TRY_AGAIN_LATER: u16 = 1013;

    pub(crate) fn new(code: u16, reason: impl Into<Bytes>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }

    pub(crate) fn normal() -> Self {
        Self::new(Self::NORMAL, Bytes::new())
    }
}

/// Why what was received cannot be read any further.
#[derive(Debug)]
pub(crate) enum FrameError {
    Io(io::Error),
    /// A message is larger than this.
    TooLarge(usize),
    /// A rule of RFC 6455 is broken.
    Protocol(&'static str),
    /// A client's frame was not masked. A peer in Go ends the connection without a word.
    NotMasked,
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads and writes the frames of one connection.
#[derive(Debug)]
pub(crate) struct FrameCodec {
    role: Role,
    most_bytes: usize,
    header: Option<(FrameHeader, usize)>,
    /// The beginning of a message of several frames.
    begun: Option<BytesMut>,
}

impl FrameCodec {
    /// Of the end `role`, which reads messages of at most `most_bytes`.
    pub(crate) fn new(role: Role, most_bytes: usize) -> Self {
        Self {
            role,
            most_bytes,
            header: None,
            begun: None,
        }
    }

    /// Checks what can be known before the payload is there. Returns its length.
    fn check(&self, header: &FrameHeader, length: u64) -> Result<usize, FrameError> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(FrameError::Protocol("a reserved bit is set"));
        }
        match (self.role, header.mask) {
            (Role::Server, None) => return Err(FrameError::NotMasked),
            (Role::Client, Some(_)) => {
                return Err(FrameError::Protocol("a frame of the server is masked"));
            }
            _ => {}
        }
        if let OpCode::Control(_) = header.opcode {
            if !header.is_final || length > MOST_CONTROL_BYTES {
                return Err(FrameError::Protocol("a control frame is too long"));
            }
        } else {
            let begun = self.begun.as_ref().map_or(0, BytesMut::len);
            let room = self.most_bytes.saturating_sub(begun);
            if usize::try_from(length).is_ok_and(|length| length > room) || length > ROOM_FOR_ALL {
                return Err(FrameError::TooLarge(self.most_bytes));
            }
        }
        usize::try_from(length).map_err(|_| FrameError::TooLarge(self.most_bytes))
    }

    /// A part of a message. Returns the message when it is whole.
    fn part(
        &mut self,
        kind: Data,
        is_final: bool,
        payload: BytesMut,
    ) -> Result<Option<Frame>, FrameError> {
        let whole = match (kind, self.begun.take()) {
            (Data::Continue, Some(mut begun)) => {
                begun.unsplit(payload);
                begun
            }
            (Data::Text | Data::Binary, None) => payload,
            (Data::Continue, None) => {
                return Err(FrameError::Protocol("a message goes on that has not begun"));
            }
            _ => return Err(FrameError::Protocol("a message begins within another one")),
        };
        if is_final {
            return Ok(Some(Frame::Message(whole.freeze())));
        }
        self.begun = Some(whole);
        Ok(None)
    }
}

/// More than any message has, on any platform.
const ROOM_FOR_ALL: u64 = u32::MAX as u64;

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        loop {
            let (header, length) = if let Some(begun) = self.header.take() {
                begun
            } else {
                let mut cursor = Cursor::new(&source[..]);
                let parsed = FrameHeader::parse(&mut cursor);
                let parsed = parsed.map_err(|_| FrameError::Protocol("an unknown opcode"))?;
                let Some((header, length)) = parsed else {
                    return Ok(None);
                };
                let header_bytes = usize::try_from(cursor.position()).unwrap_or(source.len());
                source.advance(header_bytes);
                let length = self.check(&header, length)?;
                (header, length)
            };
            if source.len() < length {
                source.reserve((length - source.len()).min(ROOM));
                self.header = Some((header, length));
                return Ok(None);
            }
            let mut payload = source.split_to(length);
            if length > ROOM {
                // What comes next is not to keep the room of a large message.
                *source = BytesMut::from(&source[..]);
            }
            if let Some(mask) = header.mask {
                apply_mask(&mut payload, mask);
            }
            let frame = match header.opcode {
                OpCode::Control(Control::Ping) => Some(Frame::Ping(payload.freeze())),
                OpCode::Control(Control::Pong) => Some(Frame::Pong(payload.freeze())),
                OpCode::Control(_) => Some(Frame::Close(read_close(&payload.freeze())?)),
                OpCode::Data(kind) => self.part(kind, header.is_final, payload)?,
            };
            if frame.is_some() {
                return Ok(frame);
            }
        }
    }
}

fn read_close(payload: &Bytes) -> Result<Option<Close>, FrameError> {
    match payload[..] {
        [] => Ok(None),
        [_] => Err(FrameError::Protocol("a close has half a code")),
        [high, low, ..] => {
            let code = u16::from_be_bytes([high, low]);
            Ok(Some(Close::new(code, payload.slice(2..))))
        }
    }
}

impl FrameCodec {
    /// Writes a frame behind what is in `target`. Returns the payload that is to follow, if it is not there: a large one need not be copied
    /// where it is not masked.
    pub(crate) fn write(
        &mut self,
        frame: Frame,
        target: &mut BytesMut,
    ) -> Result<Bytes, FrameError> {
        let (opcode, payload) = match frame {
            Frame::Message(payload) => (OpCode::Data(Data::Text), payload),
            Frame::Ping(payload) => (OpCode::Control(Control::Ping), payload),
            Frame::Pong(payload) => (OpCode::Control(Control::Pong), payload),
            Frame::Close(close) => (OpCode::Control(Control::Close), write_close(close)),
        };
        let header = FrameHeader {
            opcode,
            // It keeps a script in a browser from choosing what a proxy sees. The payload here is the program's own, so that a mask
            // need not be hard to guess.
            mask: (self.role == Role::Client).then(|| fastrand::u32(..).to_ne_bytes()),
            ..FrameHeader::default()
        };
        let is_copied = header.mask.is_some() || payload.len() <= ROOM;
        let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        let copied = if is_copied { payload.len() } else { 0 };
        target.reserve(header.len(length) + copied);
        let written = header.format(length, &mut (&mut *target).writer());
        written.map_err(|_| FrameError::Protocol("a frame cannot be written"))?;
        if !is_copied {
            return Ok(payload);
        }
        let begin = target.len();
        target.put_slice(&payload);
        if let Some(mask) = header.mask {
            apply_mask(&mut target[begin..], mask);
        }
        Ok(Bytes::new())
    }

    /// Bytes of the parts of a message that has begun.
    pub(crate) fn begun_bytes(&self) -> usize {
        self.begun.as_ref().map_or(0, BytesMut::capacity)
    }
}

fn write_close(close: Option<Close>) -> Bytes {
    let Some(close) = close else {
        return Bytes::new();
    };
    let mut payload = BytesMut::with_capacity(2 + close.reason.len());
    payload.put_u16(close.code);
    payload.put_slice(&close.reason);
    let most = usize::try_from(MOST_CONTROL_BYTES).unwrap_or(usize::MAX);
    payload.truncate(most);
    payload.freeze()
}

fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, mask) in payload.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 300;

    fn client() -> FrameCodec {
        FrameCodec::new(Role::Client, MOST)
    }

    fn server() -> FrameCodec {
        FrameCodec::new(Role::Server, MOST)
    }

    fn decoded(codec: &mut FrameCodec, bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        codec.decode(&mut BytesMut::from(bytes))
    }

    fn message(text: &'static str) -> Frame {
        Frame::Message(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn text_binary_and_fragments_are_alike_and_need_not_be_utf8() {
        for (bytes, text) in [
            (&b"\x81\x02hi"[..], "hi"),
            (b"\x82\x02hi", "hi"),
            (b"\x01\x01h\x00\x00\x80\x01i", "hi"),
            (b"\x81\x00", ""),
        ] {
            let frame = decoded(&mut client(), bytes).unwrap();
            assert_eq!(frame, Some(message(text)), "{bytes:?}");
        }
        let odd = decoded(&mut client(), b"\x81\x02\xff\xfe").unwrap();
        assert_eq!(odd, Some(Frame::Message(Bytes::from_static(b"\xff\xfe"))));
    }

    #[test]
    fn a_control_frame_may_stand_within_a_message() {
        let mut codec = client();
        let mut source = BytesMut::from(&b"\x01\x01h\x89\x011\x80\x01i"[..]);
        let ping = codec.decode(&mut source).unwrap();
        assert_eq!(ping, Some(Frame::Ping(Bytes::from_static(b"1"))));
        assert_eq!(codec.decode(&mut source).unwrap(), Some(message("hi")));
    }

    #[test]
    fn a_close_has_a_code_and_a_reason_or_neither() {
        for (bytes, close) in [
            (&b"\x88\x00"[..], None),
            (b"\x88\x02\x03\xe8", Some(Close::normal())),
            (b"\x88\x04\x0f\xa0hi", Some(Close::new(4000, "hi"))),
        ] {
            let frame = decoded(&mut client(), bytes).unwrap();
            assert_eq!(frame, Some(Frame::Close(close.clone())));
            let mut written = BytesMut::new();
            server().write(Frame::Close(close), &mut written).unwrap();
            assert_eq!(written, bytes);
        }
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        for (bytes, rule) in [
            (&b"\xc1\x00"[..], "reserved"),
            (b"\x83\x00", "opcode"),
            (b"\x80\x00", "has not begun"),
            (b"\x01\x00\x81\x00", "within another"),
            (b"\x88\x01\x03", "half a code"),
            (b"\x09\x00", "control"),
            (b"\x89\x7e\x00\x7e", "control"),
            (b"\x81\x80\x00\x00\x00\x00", "masked"),
        ] {
            match decoded(&mut client(), bytes) {
                Err(FrameError::Protocol(why)) => assert!(why.contains(rule), "{why}"),
                other => panic!("{bytes:?}: {other:?}"),
            }
        }
        let unmasked = decoded(&mut server(), b"\x81\x00");
        assert!(matches!(unmasked, Err(FrameError::NotMasked)));
    }

    #[test]
    fn a_message_may_be_as_large_as_the_limit_and_no_larger_in_any_number_of_frames() {
        let most = vec![b'x'; MOST];
        for split in [0, 1, MOST] {
            let mut codec = client();
            let mut bytes = BytesMut::new();
            let mut raw = |first: u8, payload: &[u8]| {
                bytes.put_slice(&[first, 126]);
                bytes.put_u16(u16::try_from(payload.len()).unwrap());
                bytes.put_slice(payload);
            };
            raw(0x01, &most[..split]);
            raw(0x80, &most[split..]);
            let whole = codec.decode(&mut bytes).unwrap();
            assert_eq!(whole, Some(Frame::Message(Bytes::from(most.clone()))));
        }
        let mut more = BytesMut::from(&b"\x01\x01x\x80\x7e\x01\x2c"[..]);
        let refused = client().decode(&mut more);
        assert!(matches!(refused, Err(FrameError::TooLarge(MOST))));
        // Known from its header alone: nothing of it is kept.
        let huge = decoded(&mut client(), b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff");
        assert!(matches!(huge, Err(FrameError::TooLarge(MOST))));
    }

    #[test]
    fn a_length_that_is_only_announced_takes_little_room() {
        let mut codec = FrameCodec::new(Role::Client, 1 << 30);
        let mut source = BytesMut::from(&b"\x81\x7f\x00\x00\x00\x00\x3f\x00\x00\x00"[..]);
        assert_eq!(codec.decode(&mut source).unwrap(), None);
        assert!(source.capacity() <= 2 * ROOM, "{}", source.capacity());
    }

    proptest! {
        #[test]
        fn what_one_end_writes_the_other_reads_however_it_is_cut(
            payload in prop::collection::vec(any::<u8>(), 0..MOST),
            cut in 0..MOST + 14,
            from_client: bool,
        ) {
            let (mut from, mut to) = if from_client {
                (client(), server())
            } else {
                (server(), client())
            };
            let frame = Frame::Message(Bytes::from(payload));
            let mut written = BytesMut::new();
            from.write(frame.clone(), &mut written).unwrap();
            let rest = written.split_off(cut.min(written.len()));
            let early = to.decode(&mut written).unwrap();
            let read = if let Some(whole) = early {
                whole
            } else {
                written.extend_from_slice(&rest);
                to.decode(&mut written).unwrap().unwrap()
            };
            prop_assert_eq!(read, frame);
            prop_assert!(written.is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, is_server: bool) {
            let mut codec = if is_server { server() } else { client() };
            let mut source = BytesMut::from(&bytes[..]);
            while let Ok(Some(frame)) = codec.decode(&mut source) {
                if let Frame::Message(payload) = frame {
                    prop_assert!(payload.len() <= MOST);
                }
            }
        }
    }
}
