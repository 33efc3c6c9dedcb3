//! A reader of HTTP/2 frame headers that takes bytes in chunks of any size (RFC 9113, section 4.1).

/// Types of frames.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0x0;
    pub(crate) const HEADERS: u8 = 0x1;
    pub(crate) const SETTINGS: u8 = 0x4;
    pub(crate) const PING: u8 = 0x6;
    pub(crate) const GO_AWAY: u8 = 0x7;
    pub(crate) const WINDOW_UPDATE: u8 = 0x8;
    /// The largest that RFC 9113 defines.
    pub(crate) const CONTINUATION: u8 = 0x9;
}

const HEADER_BYTES: usize = 9;
const ACK: u8 = 0x1;
const WITHOUT_RESERVED_BIT: u32 = 0x7fff_ffff;
/// More of a frame than this is not looked at. What is looked at has a few dozen bytes.
const KEPT_BYTES: usize = 1024;
/// What a client sends before its first frame.
const PREFACE_BYTES: usize = 24;

/// What was read.
#[derive(Debug)]
pub(crate) enum Frame<'a> {
    /// The header of a frame, and how much follows it.
    Begun {
        kind: u8,
        stream: u32,
        length: usize,
    },
    /// So many more bytes of a frame.
    Part {
        kind: u8,
        length: usize,
    },
    /// The payload of SETTINGS, as far as it is looked at.
    Settings(&'a [u8]),
    GoAway {
        code: u32,
        debug: &'a [u8],
    },
    /// So much more may come over the whole connection.
    ConnectionWindow(u32),
}

/// One direction of a connection.
#[derive(Debug)]
pub(crate) struct Frames {
    /// What comes before the first frame.
    preface: usize,
    header: [u8; HEADER_BYTES],
    filled: usize,
    /// How much of the payload is still to come.
    left: usize,
    payload: Vec<u8>,
}

impl Frames {
    pub(crate) fn of_a_server() -> Self {
        Self {
            preface: 0,
            header: [0; HEADER_BYTES],
            filled: 0,
            left: 0,
            payload: Vec::new(),
        }
    }

    pub(crate) fn of_a_client() -> Self {
        Self {
            preface: PREFACE_BYTES,
            ..Self::of_a_server()
        }
    }

    /// Reads the next bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut see: impl FnMut(Frame<'_>)) {
        let skipped = bytes.len().min(self.preface);
        self.preface -= skipped;
        let (_, mut bytes) = bytes.split_at(skipped);
        while !bytes.is_empty() {
            let taken = if self.filled < HEADER_BYTES {
                self.header(bytes, &mut see)
            } else {
                self.payload(bytes, &mut see)
            };
            if self.filled == HEADER_BYTES && self.left == 0 {
                self.finish(&mut see);
            }
            (_, bytes) = bytes.split_at(taken);
        }
    }

    fn header(&mut self, bytes: &[u8], see: &mut impl FnMut(Frame<'_>)) -> usize {
        let taken = bytes.len().min(HEADER_BYTES - self.filled);
        for (to, from) in self.header.iter_mut().skip(self.filled).zip(bytes) {
            *to = *from;
        }
        self.filled += taken;
        if self.filled == HEADER_BYTES {
            let [a, b, c, kind, ..] = self.header;
            self.left = u32::from_be_bytes([0, a, b, c]) as usize;
            see(Frame::Begun {
                kind,
                stream: self.stream(),
                length: self.left,
            });
            see(Frame::Part {
                kind,
                length: HEADER_BYTES,
            });
        }
        taken
    }

    fn payload(&mut self, bytes: &[u8], see: &mut impl FnMut(Frame<'_>)) -> usize {
        let taken = bytes.len().min(self.left);
        let kind = self.kind();
        if matches!(kind, kind::SETTINGS | kind::GO_AWAY | kind::WINDOW_UPDATE) {
            let room = KEPT_BYTES.saturating_sub(self.payload.len());
            self.payload.extend(bytes.iter().take(taken.min(room)));
        }
        self.left -= taken;
        see(Frame::Part {
            kind,
            length: taken,
        });
        taken
    }

    fn kind(&self) -> u8 {
        self.header[3]
    }

    fn stream(&self) -> u32 {
        let [_, _, _, _, _, stream @ ..] = self.header;
        u32::from_be_bytes(stream) & WITHOUT_RESERVED_BIT
    }

    fn finish(&mut self, see: &mut impl FnMut(Frame<'_>)) {
        match self.kind() {
            kind::SETTINGS if self.header[4] & ACK == 0 => see(Frame::Settings(&self.payload)),
            kind::GO_AWAY => {
                if let [_, _, _, _, a, b, c, d, debug @ ..] = self.payload.as_slice() {
                    let code = u32::from_be_bytes([*a, *b, *c, *d]);
                    see(Frame::GoAway { code, debug });
                }
            }
            kind::WINDOW_UPDATE if self.stream() == 0 => {
                if let [a, b, c, d] = self.payload.as_slice() {
                    let more = u32::from_be_bytes([*a, *b, *c, *d]) & WITHOUT_RESERVED_BIT;
                    see(Frame::ConnectionWindow(more));
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
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 3];
        frame.extend(payload);
        frame
    }

    fn conversation() -> Vec<u8> {
        let mut bytes = frame(kind::SETTINGS, 0, &[0, 4, 0, 1, 0, 0, 0, 3, 0, 0, 0, 7]);
        bytes.extend(frame(kind::SETTINGS, ACK, &[]));
        bytes.extend(frame(0, 0, &[7; 5_000]));
        let mut go_away = vec![0, 0, 0, 9, 0, 0, 0, 0xb];
        go_away.extend(b"too_many_pings");
        bytes.extend(frame(kind::GO_AWAY, 0, &go_away));
        bytes
    }

    /// What is seen, in words. Parts are summed up.
    fn seen(frames: &mut Frames, chunks: &[&[u8]]) -> (Vec<String>, usize) {
        let (mut seen, mut bytes) = (Vec::new(), 0);
        for chunk in chunks {
            frames.feed(chunk, |frame| match frame {
                Frame::Part { length, .. } => bytes += length,
                other => seen.push(format!("{other:?}")),
            });
        }
        (seen, bytes)
    }

    proptest! {
        #[test]
        fn sees_the_same_however_the_bytes_are_cut(cuts in prop::collection::vec(1..700usize, 0..40)) {
            let bytes = conversation();
            let whole = seen(&mut Frames::of_a_server(), &[&bytes]);
            let (mut rest, mut chunks) = (bytes.as_slice(), Vec::new());
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            chunks.push(rest);
            prop_assert_eq!(&seen(&mut Frames::of_a_server(), &chunks), &whole);
            prop_assert_eq!(whole.1, bytes.len());
            let settings = whole.0.iter().filter(|what| what.starts_with("Settings"));
            prop_assert_eq!(settings.count(), 1, "an acknowledgement is none");
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..4_000)) {
            let mut frames = Frames::of_a_server();
            frames.feed(&bytes, |_| {});
            prop_assert!(frames.payload.len() <= KEPT_BYTES);
        }
    }
}
