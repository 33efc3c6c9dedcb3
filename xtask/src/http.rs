//! As much HTTP as asking a local server for its health takes.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const TIMEOUT: Duration = Duration::from_secs(2);

/// The body of the answer to `GET url`.
///
/// # Errors
/// The URL is not `http://host:port/path`, no server answers within two seconds, or the status is not 200.
pub(crate) fn get(url: &str) -> Result<String> {
    ask("GET", url)
}

/// The body of the answer to `DELETE url`.
///
/// # Errors
/// As [`get`].
pub(crate) fn delete(url: &str) -> Result<String> {
    ask("DELETE", url)
}

fn ask(method: &str, url: &str) -> Result<String> {
    let rest = url
        .strip_prefix("http://")
        .with_context(|| format!("{url} is no http:// URL, the only kind supported here"))?;
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, format!("/{path}")),
        None => (rest, "/".to_owned()),
    };
    let address = authority
        .to_socket_addrs()
        .with_context(|| format!("{url} has no address"))?
        .next()
        .with_context(|| format!("{url} has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)
        .with_context(|| format!("cannot connect to {url}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // HTTP/1.0: the answer comes in one piece and ends with the connection.
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .with_context(|| format!("no answer from {url}"))?;
    body(&answer).with_context(|| format!("invalid answer from {url}"))
}

fn body(answer: &str) -> Result<String> {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the head of the answer is incomplete")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("status `{status}`");
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_follows_the_first_empty_line() {
        let answer = "HTTP/1.0 200 OK\r\nContent-Length: 17\r\n\r\n{\"health\":\"true\"}";
        assert_eq!(body(answer).unwrap(), "{\"health\":\"true\"}");
    }

    #[test]
    fn another_status_or_half_an_answer_is_an_error() {
        assert!(body("HTTP/1.0 503 Service Unavailable\r\n\r\n{\"health\":\"false\"}").is_err());
        assert!(body("HTTP/1.0 200 OK\r\nContent-Le").is_err());
    }
}
