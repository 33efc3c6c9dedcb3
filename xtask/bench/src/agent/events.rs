//! A reader of a service's stream of events that costs little, so that what is measured is the agent: it takes each event by its length,
//! and looks only at its beginning. The agent sends each event as one chunk of its answer.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::str;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::Result;

/// How much of an event is looked at: enough for what it says of the first instance.
const BEGINNING: usize = 512;

thread_local! {
    /// What is being read, of all readers of this thread: a buffer for each of a thousand would lie in no cache.
    static PART: RefCell<Box<[u8]>> = RefCell::new(vec![0; 256 * 1024].into());
}

/// An open stream.
#[derive(Debug)]
pub(super) struct EventStream {
    stream: TcpStream,
    events: Events,
}

/// An event that has arrived as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    pub(super) at: Instant,
    pub(super) bytes: usize,
}

impl EventStream {
    pub(super) async fn open(address: SocketAddr, path: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let events = Events::default();
        Ok(Self { stream, events })
    }

    /// The next event whose beginning has this text in it. Cancel-safe.
    pub(super) async fn until(&mut self, text: &str) -> Result<Arrived> {
        loop {
            self.stream.readable().await?;
            if let Some(arrived) = PART.with_borrow_mut(|part| self.read(part, text))? {
                return Ok(arrived);
            }
        }
    }

    fn read(&mut self, part: &mut [u8], text: &str) -> Result<Option<Arrived>> {
        let read = match self.stream.try_read(part) {
            Ok(0) => return Err("the stream has ended".into()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut arrived = None;
        self.events.push(&part[..read], |event, bytes| {
            if str::from_utf8(event).is_ok_and(|event| event.contains(text)) {
                let at = Instant::now();
                arrived = Some(Arrived { at, bytes });
            }
        })?;
        Ok(arrived)
    }
}

/// Finds events in what is read.
#[derive(Debug, Default)]
struct Events {
    expected: Expected,
    line: Vec<u8>,
    beginning: Vec<u8>,
}

/// What comes next.
#[derive(Debug, Default)]
enum Expected {
    #[default]
    Status,
    /// Or the empty line after them.
    Header,
    Length,
    /// So many bytes of a chunk of this length, with the end of the line behind it.
    Chunk {
        left: usize,
        length: usize,
    },
}

impl Events {
    /// Takes the next bytes, and calls `each` with the beginning of each event that ends in them, and its length.
    fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8], usize)) -> Result<()> {
        while !bytes.is_empty() {
            if let Expected::Chunk { left, length } = &mut self.expected {
                let (part, rest) = bytes.split_at((*left).min(bytes.len()));
                let room = BEGINNING - self.beginning.len();
                self.beginning.extend(part.iter().take(room));
                *left -= part.len();
                bytes = rest;
                if *left == 0 {
                    each(&self.beginning, *length);
                    self.beginning.clear();
                    self.expected = Expected::Length;
                }
            } else {
                let end = bytes.iter().position(|byte| *byte == b'\n');
                let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
                self.line.extend(part);
                bytes = rest;
                if end.is_some() {
                    self.end_line()?;
                }
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<()> {
        let line = str::from_utf8(&self.line)?.trim_end();
        self.expected = match self.expected {
            Expected::Status if line.starts_with("HTTP/1.1 200 ") => Expected::Header,
            Expected::Status => return Err(format!("the stream is refused: {line}").into()),
            Expected::Header if line.is_empty() => Expected::Length,
            Expected::Header => Expected::Header,
            Expected::Length | Expected::Chunk { .. } => {
                let length = usize::from_str_radix(line, 16)?;
                let left = length + "\r\n".len();
                Expected::Chunk { left, length }
            }
        };
        self.line.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

    /// The events of an answer that is read in parts of this size.
    fn read(answer: &str, size: usize) -> Result<Vec<(String, usize)>> {
        let mut events = Events::default();
        let mut found = Vec::new();
        for part in answer.as_bytes().chunks(size) {
            let each = |event: &[u8], length| {
                found.push((String::from_utf8_lossy(event).into_owned(), length));
            };
            events.push(part, each)?;
        }
        Ok(found)
    }

    #[test]
    fn an_event_is_found_at_its_end_however_it_arrives() {
        let long = "x".repeat(0x400);
        let answer = format!("{ANSWER}5\r\nid: 1\r\n400\r\n{long}\r\n5\r\nid: 2\r\n5\r\nid:");
        for size in [1, 3, 100, 10_000] {
            let found = read(&answer, size).unwrap();
            let lengths: Vec<_> = found.iter().map(|(_, length)| *length).collect();
            assert_eq!(lengths, [5, 0x400, 5]);
            assert_eq!(found[0].0, "id: 1\r\n");
            assert_eq!(found[1].0, long[..BEGINNING]);
        }
    }

    #[test]
    fn an_answer_that_is_no_stream_is_an_error() {
        let refused = read("HTTP/1.1 503 Service Unavailable\r\n", 7).unwrap_err();
        assert!(refused.to_string().contains("503"), "{refused}");
        assert!(read(&format!("{ANSWER}no length\r\n"), 7).is_err());
    }
}
