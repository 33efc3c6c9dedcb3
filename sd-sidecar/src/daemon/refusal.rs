//! Answers to connections that are not served, written without a server of HTTP.

use std::io;
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::wire::envelope;

/// The only answer of a connection.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: &'static str,
    /// Further lines of the head.
    headers: &'static str,
    code: &'static str,
    message: &'static str,
}

/// There are too many.
pub(crate) const FULL: Refusal = Refusal {
    status: "503 Service Unavailable",
    headers: "retry-after: 1\r\n",
    code: "too_many_connections",
    message: "the agent has too many connections",
};

/// A client speaks HTTP where TLS is meant.
pub(crate) const NO_TLS: Refusal = Refusal {
    status: "400 Bad Request",
    headers: "",
    code: "invalid_request",
    message: "this address speaks TLS: write https:// in place of http://",
};

impl Refusal {
    /// Sends it, and waits until the client has read it.
    pub(crate) async fn send(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let failure = envelope::failure(self.code, self.message, SystemTime::now());
        let body = serde_json::to_string(&failure)?;
        let answer = format!(
            "HTTP/1.1 {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{}connection: close\r\n\r\n{body}",
            self.status,
            body.len(),
            self.headers
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // What is left unread would reset the connection, and take the answer away.
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        Ok(())
    }
}
