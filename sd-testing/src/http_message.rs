//! As much of HTTP/1.1 as the test kit needs: heads, and short answers that end with their connection.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// More than any server or client here sends as a head.
const MOST_HEAD_BYTES: usize = 64 * 1024;
/// The room for one more read.
const CHUNK_BYTES: usize = 4 * 1024;

/// The start line and the headers, and what was read of the body along with them.
#[derive(Debug)]
pub(super) struct Head {
    lines: Vec<String>,
    pub(super) rest: Vec<u8>,
}

impl Head {
    /// Reads up to the empty line; `None` when the peer closed before it sent anything.
    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut bytes = Vec::with_capacity(CHUNK_BYTES);
        loop {
            if from.read_buf(&mut bytes).await? == 0 {
                let empty = bytes.is_empty();
                return if empty { Ok(None) } else { Err(cut()) };
            }
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                return Ok(Some(Self {
                    lines: lines(&bytes[..end]),
                    rest: bytes.split_off(end + 4),
                }));
            }
            if bytes.len() > MOST_HEAD_BYTES {
                let why = format!("a head of more than {MOST_HEAD_BYTES} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        }
    }

    /// A word of the start line: 0 is the method of a request, 1 its target or the status of an answer.
    pub(super) fn word(&self, index: usize) -> &str {
        let start = self.lines.first().map(String::as_str).unwrap_or_default();
        start.split(' ').nth(index).unwrap_or_default()
    }

    /// The status of an answer.
    pub(super) fn status(&self) -> io::Result<u16> {
        let invalid = |e| io::Error::new(io::ErrorKind::InvalidData, e);
        self.word(1).parse().map_err(invalid)
    }

    /// Reads as much of the body as the head says, besides what was read along with it.
    pub(super) async fn read_body(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<()> {
        let length = self.lines.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.trim().eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse::<usize>().ok())?
        });
        while self.rest.len() < length.unwrap_or_default() {
            if from.read_buf(&mut self.rest).await? == 0 {
                return Err(cut());
            }
        }
        Ok(())
    }

    /// Replaces a header, or adds it.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        let is_other = |line: &String| {
            line.split_once(':')
                .is_none_or(|(known, _)| !known.trim().eq_ignore_ascii_case(name))
        };
        self.lines.retain(is_other);
        self.lines.push(format!("{name}: {value}"));
    }

    /// The head and what followed it, as it goes over the wire.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        let mut bytes = self.lines.join("\r\n").into_bytes();
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes.extend(self.rest);
        bytes
    }
}

/// An answer after which the connection ends.
pub(super) fn answer(status: u16, headers: &[(String, String)], body: &str) -> Vec<u8> {
    let mut head = Head {
        lines: vec![format!("HTTP/1.1 {status} Injected")],
        rest: body.as_bytes().to_vec(),
    };
    head.set("Content-Length", &body.len().to_string());
    head.set("Connection", "close");
    for (name, value) in headers {
        head.set(name, value);
    }
    head.into_bytes()
}

fn lines(head: &[u8]) -> Vec<String> {
    // Header values may be Latin-1, which nothing here looks at.
    let text = String::from_utf8_lossy(head);
    text.split("\r\n").map(str::to_owned).collect()
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "closed within a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> io::Result<Option<Head>> {
        Head::read(&mut &bytes[..]).await
    }

    #[tokio::test]
    async fn a_head_is_split_from_its_body_and_headers_are_replaced_in_any_case() {
        let message =
            b"PUT /v1/kv/a?cas=0 HTTP/1.1\r\nhost: a\r\nCONNECTION: keep-alive\r\n\r\nbody";
        let mut head = read(message).await.unwrap().unwrap();
        assert_eq!((head.word(0), head.word(1)), ("PUT", "/v1/kv/a?cas=0"));
        head.set("Connection", "close");
        let sent = String::from_utf8(head.into_bytes()).unwrap();
        let expected = "PUT /v1/kv/a?cas=0 HTTP/1.1\r\nhost: a\r\nConnection: close\r\n\r\nbody";
        assert_eq!(sent, expected);
    }

    #[tokio::test]
    async fn a_body_is_read_to_its_length_and_one_that_is_cut_is_an_error() {
        let head = "PUT / HTTP/1.1\r\nCONTENT-LENGTH: 4\r\n\r\n";
        let mut from = head.as_bytes().chain(&b"b"[..]).chain(&b"ody"[..]);
        let mut read = Head::read(&mut from).await.unwrap().unwrap();
        read.read_body(&mut from).await.unwrap();
        assert_eq!(read.rest, b"body");
        let mut from = head.as_bytes().chain(&b"bod"[..]);
        let mut read = Head::read(&mut from).await.unwrap().unwrap();
        let cut = read.read_body(&mut from).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn an_answer_has_a_length_and_the_headers_that_were_asked_for() {
        let headers = [("Retry-After".to_owned(), "3".to_owned())];
        let head = read(&answer(429, &headers, "slow down")).await.unwrap();
        let mut head = head.unwrap();
        assert_eq!(
            (head.status().unwrap(), &head.rest[..]),
            (429, &b"slow down"[..])
        );
        head.rest.clear();
        let text = String::from_utf8(head.into_bytes()).unwrap();
        assert!(text.contains("Content-Length: 9\r\n") && text.contains("Retry-After: 3\r\n"));
    }

    #[tokio::test]
    async fn a_closed_cut_or_endless_head_is_told_apart() {
        assert!(read(b"").await.unwrap().is_none());
        let cut = read(b"GET / HTT").await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        let endless = read(&vec![b'a'; 2 * MOST_HEAD_BYTES]).await.unwrap_err();
        assert_eq!(endless.kind(), io::ErrorKind::InvalidData);
    }
}
