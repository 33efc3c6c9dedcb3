//! Server-sent events as the agent's streams write and its clients read them.
//!
//! The reader follows the reference system's, which differs from the standard: an `id` is that of its frame alone, a bare carriage return
//! ends no line, a field without a colon is ignored, and a frame that the end of the stream cuts off counts.

use std::fmt::{self, Write};

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Its id. Empty if it has none.
    pub id: String,
    /// Its name. Empty if it has none.
    pub event: String,
    /// What it says, of several lines if need be.
    pub data: String,
}

/// Writes the frame with the blank line that ends it. Neither id nor name can break out of their line.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (field, value) in [("id", &self.id), ("event", &self.event)] {
            if !value.is_empty() {
                write!(f, "{field}: ")?;
                for c in value.chars().filter(|c| !matches!(c, '\r' | '\n' | '\0')) {
                    f.write_char(c)?;
                }
                f.write_char('\n')?;
            }
        }
        for line in self
            .data
            .split("\r\n")
            .flat_map(|line| line.split(['\r', '\n']))
        {
            writeln!(f, "data: {line}")?;
        }
        f.write_char('\n')
    }
}

/// A sign of life for readers that know no heartbeats, with the blank line that ends it.
pub const COMMENT_BEAT: &str = ": heartbeat\n\n";

/// A frame or a line is longer than the reader allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// The most bytes of one frame.
    pub limit: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an event is longer than {} bytes", self.limit)
    }
}

impl std::error::Error for TooLong {}

/// Makes frames of the bytes of a stream, however they are cut.
#[derive(Debug)]
pub struct Reader {
    limit: usize,
    /// The line that has not ended yet.
    line: Vec<u8>,
    frame: Frame,
    /// Whether the frame has a line of data, which may be empty.
    has_data: bool,
    /// The bytes of the lines of the frame.
    bytes: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self::with_limit(Self::DEFAULT_LIMIT)
    }
}

impl Reader {
    /// The most bytes of one frame, 1 MiB.
    pub const DEFAULT_LIMIT: usize = 1 << 20;

    /// Reads frames of at most `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            frame: Frame::default(),
            has_data: false,
            bytes: 0,
        }
    }

    /// Takes the next bytes, and hands on each frame that ends in them.
    ///
    /// # Errors
    /// [`TooLong`]. The stream cannot be read on then.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Frame)) -> Result<(), TooLong> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.extend(&rest[..end])?;
            rest = &rest[end + 1..];
            let mut line = std::mem::take(&mut self.line);
            if let Some(frame) = self.line(&line) {
                each(frame);
            }
            line.clear();
            self.line = line;
        }
        self.extend(rest)
    }

    /// The frame that the end of the stream has cut off.
    pub fn finish(mut self) -> Option<Frame> {
        let line = std::mem::take(&mut self.line);
        let frame = self.line(&line);
        frame.or_else(|| self.dispatch())
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        self.bytes += bytes.len();
        if self.bytes > self.limit {
            return Err(TooLong { limit: self.limit });
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Option<Frame> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return self.dispatch();
        }
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':')?;
        let value = value.strip_prefix(' ').unwrap_or(value);
        // A comment has a field without a name.
        match field.trim() {
            "event" => value.clone_into(&mut self.frame.event),
            "id" => value.clone_into(&mut self.frame.id),
            "data" => {
                if self.has_data {
                    self.frame.data.push('\n');
                }
                self.has_data = true;
                self.frame.data.push_str(value);
            }
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Frame> {
        self.bytes = 0;
        self.has_data = false;
        let frame = std::mem::take(&mut self.frame);
        (!frame.event.is_empty() || !frame.data.is_empty()).then_some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(id: &str, event: &str, data: &str) -> Frame {
        Frame {
            id: id.into(),
            event: event.into(),
            data: data.into(),
        }
    }

    /// Read whole, and byte by byte.
    fn read(stream: &str) -> Vec<Frame> {
        let mut whole = Vec::new();
        let mut reader = Reader::default();
        reader
            .push(stream.as_bytes(), |frame| whole.push(frame))
            .unwrap();
        whole.extend(reader.finish());
        let mut cut = Vec::new();
        let mut reader = Reader::default();
        for byte in stream.as_bytes() {
            reader.push(&[*byte], |frame| cut.push(frame)).unwrap();
        }
        cut.extend(reader.finish());
        assert_eq!(whole, cut);
        whole
    }

    #[test]
    fn frames_are_read_as_the_reference_system_reads_them() {
        for (stream, frames) in [
            (
                "id: 1\nevent: connected\ndata: {}\n\n",
                vec![frame("1", "connected", "{}")],
            ),
            (
                "event: connected\r\ndata: ok\r\n\r\n",
                vec![frame("", "connected", "ok")],
            ),
            ("data: ok\n\n", vec![frame("", "", "ok")]),
            (
                "data: a\ndata:b\ndata:  c\n\n",
                vec![frame("", "", "a\nb\n c")],
            ),
            ("data:\ndata: a\n\n", vec![frame("", "", "\na")]),
            // The id of one frame is not that of the next.
            (
                "id: 7\ndata: a\n\ndata: b\n\n",
                vec![frame("7", "", "a"), frame("", "", "b")],
            ),
            ("id: 7\n\ndata: b\n\n", vec![frame("", "", "b")]),
            // The end of the stream ends the last frame.
            (
                "data: a\n\ndata: b",
                vec![frame("", "", "a"), frame("", "", "b")],
            ),
            ("data: b\r", vec![frame("", "", "b")]),
            (": heartbeat\n\n\n\nretry: 3\ndata\nevent\n\n", vec![]),
            (" event : x\n\n", vec![frame("", "x", "")]),
            ("data: a\rb\n\n", vec![frame("", "", "a\rb")]),
        ] {
            assert_eq!(read(stream), frames, "{stream:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for written in [
            frame("1", "connected", "{\"a\":1}"),
            frame("", "", "a\n\n b\nc "),
            frame("", "x", ""),
        ] {
            assert_eq!(read(&written.to_string()), [written]);
        }
        assert_eq!(
            frame("1", "e", "d").to_string(),
            "id: 1\nevent: e\ndata: d\n\n"
        );
        assert_eq!(read(COMMENT_BEAT), []);
    }

    #[test]
    fn nothing_breaks_out_of_its_field() {
        let written =
            frame("1\ndata: x\n\n", "e\r\nid: 2", "a\rid: 3\n\nevent: x\r\nb").to_string();
        assert_eq!(
            read(&written),
            [frame("1data: x", "eid: 2", "a\nid: 3\n\nevent: x\nb")]
        );
    }

    #[test]
    fn a_frame_of_70_kb_passes_and_one_that_never_ends_does_not() {
        let long = "x".repeat(70 * 1024);
        assert_eq!(read(&format!("data: {long}\n\n")), [frame("", "", &long)]);
        let mut reader = Reader::with_limit(1000);
        let mut count = 0;
        for _ in 0..100 {
            reader
                .push(b"data: 0123456789\n\n", |_| count += 1)
                .unwrap();
        }
        assert_eq!(count, 100);
        let refused = |piece: &[u8]| {
            let mut reader = Reader::with_limit(1000);
            (0..1001).any(|_| reader.push(piece, |_| {}) == Err(TooLong { limit: 1000 }))
        };
        assert!(refused(b"x") && refused(b"data: x\n") && refused(b": x\n"));
    }
}
