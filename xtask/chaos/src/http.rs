//! As much HTTP as an operator of Consul needs.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Result;

/// More than any answer in a run.
const MOST_BYTES: u64 = 1024 * 1024;

/// Sends requests to one server, each over a connection of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Http {
    pub(crate) server: SocketAddr,
    pub(crate) within: Duration,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Http {
    /// # Errors
    /// No answer came in time.
    pub(crate) async fn ask(&self, method: &str, target: &str, body: &str) -> Result<Answer> {
        let answer = timeout(self.within, self.exchange(method, target, body)).await;
        Ok(answer.map_err(|_| format!("{method} {target}: no answer in time"))??)
    }

    async fn exchange(&self, method: &str, target: &str, body: &str) -> io::Result<Answer> {
        let mut connection = TcpStream::connect(self.server).await?;
        let length = body.len();
        // HTTP/1.0: the answer comes in one piece and ends with the connection.
        let request =
            format!("{method} {target} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection
            .take(MOST_BYTES)
            .read_to_string(&mut answer)
            .await?;
        parse(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl Answer {
    /// # Errors
    /// The server refused, or said something else.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        if self.status == 200 {
            return Ok(serde_json::from_str(&self.body)?);
        }
        Err(format!("Consul answered {} `{}`", self.status, self.body).into())
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
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let answer = parse("HTTP/1.0 200 OK\r\nA: b\r\n\r\ntrue\n").unwrap();
        assert!(answer.json::<bool>().unwrap());
        let refused = parse("HTTP/1.0 500 Internal Server Error\r\n\r\nno leader").unwrap();
        let error = refused.json::<bool>().unwrap_err().to_string();
        assert!(
            error.contains("500") && error.contains("no leader"),
            "{error}"
        );
        assert!(parse("HTTP/1.0 200 OK\r\n").is_none());
    }
}
