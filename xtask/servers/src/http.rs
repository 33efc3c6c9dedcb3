//! As much HTTP as asking a server of this machine takes, without a runtime.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// More than any answer that a test asks for.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// The room for one more read.
const CHUNK_BYTES: usize = 4 * 1024;

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
        let answer = self.exchange(server, deadline);
        answer.map_err(|error| {
            let (why, Self { method, target, .. }) = (reason(&error), self);
            io::Error::new(
                error.kind(),
                format!("{method} http://{server}{target}: {why}"),
            )
        })
    }

    fn exchange(&self, server: SocketAddr, deadline: Instant) -> io::Result<Answer> {
        let mut stream = TcpStream::connect_timeout(&server, left(deadline)?)?;
        stream.set_write_timeout(Some(left(deadline)?))?;
        stream.write_all(self.message(server).as_bytes())?;
        let mut answer = Vec::new();
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            stream.set_read_timeout(Some(left(deadline)?))?;
            match stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => answer.extend(chunk.iter().take(read)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if answer.len() > MOST_BYTES {
                let why = format!("an answer of more than {MOST_BYTES} bytes");
                return Err(io::Error::new(ErrorKind::InvalidData, why));
            }
        }
        parse(&String::from_utf8_lossy(&answer))
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "half an answer, or no HTTP"))
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

/// Where the server with this URL is, `http://host:port`.
///
/// # Errors
/// It is another kind of URL, or its host has no address.
pub fn address_of(url: &str) -> io::Result<SocketAddr> {
    let authority = url.strip_prefix("http://").map(|rest| {
        let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
        authority
    });
    let Some(authority) = authority else {
        let why = format!("only http:// can be asked here, not {url}");
        return Err(io::Error::new(ErrorKind::InvalidInput, why));
    };
    let none = || io::Error::new(ErrorKind::InvalidInput, format!("{url} has no address"));
    authority.to_socket_addrs()?.next().ok_or_else(none)
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = body.to_owned();
    Some(Answer { status, body })
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// A socket whose time is up says that it would block.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "no answer in time".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    /// What a server said that answers so, and what it was asked.
    fn told(answer: &'static str, within: Duration) -> (io::Result<Answer>, String) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let server = listener.local_addr().unwrap();
        let serving = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\nbody") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.extend(byte);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            if answer.is_empty() {
                // Silence, until the other side gives up.
                let _ = stream.read(&mut [0]);
            }
            String::from_utf8(asked).unwrap()
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

    #[test]
    fn an_address_is_that_of_a_plain_url() {
        let address = address_of("http://127.0.0.1:2379/").unwrap();
        assert_eq!(address, SocketAddr::from(([127, 0, 0, 1], 2379)));
        for bad in ["https://127.0.0.1:2379", "127.0.0.1:2379", "http://a"] {
            assert!(address_of(bad).is_err(), "{bad}");
        }
    }
}
