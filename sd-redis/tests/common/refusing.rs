//! A server in this process that answers everything with the same bytes, as something else than Redis may.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// Dropping it ends it and its connections.
pub(crate) struct Refusing {
    address: SocketAddr,
    task: AbortHandle,
}

impl Refusing {
    /// Answers each request with an error that no Redis of today gives.
    pub(crate) async fn everything() -> Self {
        Self::with(b"-ERR refused\r\n").await
    }

    pub(crate) async fn with(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(accept(listener, answer)).abort_handle();
        Self { address, task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, answer: &'static [u8]) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, answer));
    }
}

/// A client that goes away ends this, which is no failure of the test.
async fn serve(mut stream: TcpStream, answer: &'static [u8]) -> std::io::Result<()> {
    let mut request = [0; 4096];
    while stream.read(&mut request).await? > 0 {
        stream.write_all(answer).await?;
    }
    Ok(())
}
