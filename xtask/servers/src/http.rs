//! As much HTTP as asking a server of this machine takes, without a runtime.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Instant;

use crate::tcp::{self, End};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `GET`
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Name and value of each header.
    pub headers: &'a [(&'a str, &'a str)],
    /// Empty if there is none.
    pub body: &'a str,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200
    pub status: u16,
    /// As text.
    pub body: String,
}

impl<'a> Request<'a> {
    /// A `GET` without headers.
    pub fn get(target: &'a str) -> Self {
        Self {
            method: "GET",
            target,
            headers: &[],
            body: "",
        }
    }

    /// Asks `server`, over a connection of its own that ends with the answer.
    ///
    /// # Errors
    /// No whole answer comes before the deadline, or it is not HTTP or too long.
    pub fn ask(&self, server: SocketAddr, deadline: Instant) -> io::Result<Answer> {
        let question = self.message(server);
        let answer = tcp::ask(server, question.as_bytes(), End::Closed, deadline);
        let answer = answer.and_then(|answer| {
            let half = || io::Error::new(ErrorKind::InvalidData, "half an answer, or no HTTP");
            parse(&String::from_utf8_lossy(&answer)).ok_or_else(half)
        });
        answer.map_err(|error| {
            let Self { method, target, .. } = self;
            let why = format!("{method} http://{server}{target}: {error}");
            io::Error::new(error.kind(), why)
        })
    }

    /// As it goes over the wire.
    fn message(&self, server: SocketAddr) -> String {
        let Self { method, target, .. } = self;
        let (length, body) = (self.body.len(), self.body);
        let headers = self.headers.iter();
        let headers: Vec<String> = headers
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let headers = headers.concat();
        // HTTP/1.0: the answer comes in one piece and ends with the connection.
        format!(
            "{method} {target} HTTP/1.0\r\nHost: {server}\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        )
    }
}

impl Answer {
    /// The body of a good answer.
    ///
    /// # Errors
    /// The status is not 200.
    pub fn ok(self) -> io::Result<String> {
        let Self { status, body } = self;
        if status == 200 {
            return Ok(body);
        }
        Err(io::Error::other(format!("status {status} `{body}`")))
    }
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = body.to_owned();
    Some(Answer { status, body })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Duration;

    use super::*;
    use crate::tcp::tests::{SOON, server_that_answers};

    /// What a server said that answers so, and what it was asked.
    fn told(answer: &'static str, within: Duration) -> (io::Result<Answer>, String) {
        let (server, serving) = server_that_answers(b"\r\n\r\nbody", move |stream| {
            stream.write_all(answer.as_bytes())?;
            if answer.is_empty() {
                // Silence, until the other side gives up.
                stream.read_exact(&mut [0])?;
            }
            Ok(())
        });
        let request = Request {
            method: "PUT",
            headers: &[("A", "b")],
            body: "body",
            ..Request::get("/a?b")
        };
        let answer = request.ask(server, Instant::now() + within);
        (answer, serving.join().unwrap())
    }

    #[test]
    fn the_body_follows_the_first_empty_line() {
        let (answer, asked) = told("HTTP/1.0 404 Not Found\r\nC: d\r\n\r\ne\r\n\r\nf", SOON);
        let answer = answer.unwrap();
        assert_eq!((answer.status, &*answer.body), (404, "e\r\n\r\nf"));
        assert!(asked.starts_with("PUT /a?b HTTP/1.0\r\nHost: 127.0.0.1:"));
        assert!(asked.ends_with("\r\nA: b\r\nContent-Length: 4\r\n\r\nbody"));
    }

    #[test]
    fn half_an_answer_or_silence_is_an_error_that_says_what_was_asked() {
        let (half, _) = told("HTTP/1.0 200 OK\r\nContent-Le", SOON);
        let half = half.unwrap_err().to_string();
        assert!(half.contains("PUT http://127.0.0.1:"), "{half}");
        assert!(half.ends_with("/a?b: half an answer, or no HTTP"), "{half}");
        let (silence, _) = told("", Duration::from_millis(50));
        let silence = silence.unwrap_err().to_string();
        assert!(silence.ends_with("no answer in time"), "{silence}");
    }

    #[test]
    fn another_status_than_200_is_no_good_answer() {
        let answer = |status| {
            let body = "true".to_owned();
            Answer { status, body }
        };
        assert_eq!(answer(200).ok().unwrap(), "true");
        let error = answer(503).ok().unwrap_err().to_string();
        assert_eq!(error, "status 503 `true`");
    }
}
