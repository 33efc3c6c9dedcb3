//! One question to a server of this machine and its whole answer, under limits on time and bytes, without a runtime.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// More than any answer that a test asks for.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// The room for one more read.
const CHUNK_BYTES: usize = 4 * 1024;

/// What ends an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// The server closes the connection.
    Closed,
    /// All that came until now is a whole answer.
    Whole(fn(&[u8]) -> bool),
}

/// Sends `question` over a connection of its own, and returns what comes back.
///
/// # Errors
/// The answer has not ended before the deadline, or is too long.
pub(crate) fn ask(
    server: SocketAddr,
    question: &[u8],
    end: End,
    deadline: Instant,
) -> io::Result<Vec<u8>> {
    let answer = exchange(server, question, end, deadline);
    // A socket whose time is up says that it would block.
    answer.map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            io::Error::new(ErrorKind::TimedOut, "no answer in time")
        }
        _ => error,
    })
}

/// Where the server with this URL is: `host:port` follows the scheme and `://`, or is all there is where `scheme` is empty.
///
/// # Errors
/// The URL has another scheme, or its host has no address.
pub(crate) fn address_of(scheme: &str, url: &str) -> io::Result<SocketAddr> {
    let invalid = |why: String| io::Error::new(ErrorKind::InvalidInput, why);
    let behind_scheme = match scheme {
        "" => Some(url),
        scheme => url
            .strip_prefix(scheme)
            .and_then(|rest| rest.strip_prefix("://")),
    };
    let Some(rest) = behind_scheme else {
        let why = format!("only {scheme}:// can be asked here, not {url}");
        return Err(invalid(why));
    };
    let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
    let none = || invalid(format!("{url} has no address"));
    authority.to_socket_addrs()?.next().ok_or_else(none)
}

fn exchange(
    server: SocketAddr,
    question: &[u8],
    end: End,
    deadline: Instant,
) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, left(deadline)?)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(question)?;
    let mut answer = Vec::new();
    let mut chunk = [0; CHUNK_BYTES];
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(answer),
            Ok(read) => answer.extend(chunk.iter().take(read)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if answer.len() > MOST_BYTES {
            let why = format!("an answer of more than {MOST_BYTES} bytes");
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
        if let End::Whole(is_whole) = end
            && is_whole(&answer)
        {
            return Ok(answer);
        }
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(left)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    use super::*;

    pub(crate) const SOON: Duration = Duration::from_secs(30);

    /// A server that hears one question, which ends with `end`, and answers. Joined, it tells what it was asked.
    pub(crate) fn server_that_answers(
        end: &'static [u8],
        answer: impl FnOnce(&mut TcpStream) -> io::Result<()> + Send + 'static,
    ) -> (SocketAddr, JoinHandle<String>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let server = listener.local_addr().unwrap();
        let serving = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(end) {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.extend(byte);
            }
            // The other side may have given up.
            let _ = answer(&mut stream);
            String::from_utf8(asked).unwrap()
        });
        (server, serving)
    }

    #[test]
    fn an_answer_that_comes_in_parts_is_whole_when_the_server_closes() {
        let (server, serving) = server_that_answers(b"srvr", |stream| {
            stream.write_all(b"Mode: ")?;
            stream.flush()?;
            stream.write_all(b"leader\n")
        });
        let answer = ask(server, b"srvr", End::Closed, Instant::now() + SOON).unwrap();
        assert_eq!(answer, b"Mode: leader\n");
        assert_eq!(serving.join().unwrap(), "srvr");
    }

    #[test]
    fn an_answer_that_is_whole_is_not_waited_for_any_longer() {
        let (server, _) = server_that_answers(b"PING", |stream| {
            stream.write_all(b"+PO")?;
            stream.write_all(b"NG\r\n")?;
            // It stays open.
            stream.read_exact(&mut [0])
        });
        let end = End::Whole(|answer| answer.ends_with(b"\r\n"));
        let answer = ask(server, b"PING", end, Instant::now() + SOON).unwrap();
        assert_eq!(answer, b"+PONG\r\n");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the thread of a slow server")]
    fn a_server_that_drips_on_or_says_too_much_is_given_up() {
        let (server, _) = server_that_answers(b"?", |stream| {
            loop {
                stream.write_all(b".")?;
                thread::sleep(Duration::from_millis(5));
            }
        });
        let soon = Instant::now() + Duration::from_millis(100);
        let dripping = ask(server, b"?", End::Closed, soon);
        assert_eq!(dripping.unwrap_err().to_string(), "no answer in time");
        let (server, _) = server_that_answers(b"?", |stream| {
            let much = vec![b'.'; 64 * 1024];
            loop {
                stream.write_all(&much)?;
            }
        });
        let flood = ask(server, b"?", End::Closed, Instant::now() + SOON);
        assert_eq!(flood.unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn an_address_follows_the_scheme() {
        let address = SocketAddr::from(([127, 0, 0, 1], 2379));
        for (scheme, url) in [
            ("http", "http://127.0.0.1:2379/"),
            ("redis", "redis://127.0.0.1:2379/0"),
            ("", "127.0.0.1:2379"),
        ] {
            assert_eq!(address_of(scheme, url).unwrap(), address, "{url}");
        }
        for (scheme, bad) in [
            ("http", "https://127.0.0.1:2379"),
            ("http", "127.0.0.1:2379"),
            ("http", "http://a"),
            ("", "redis://127.0.0.1:2379"),
        ] {
            assert!(address_of(scheme, bad).is_err(), "{bad}");
        }
    }
}
