//! A gRPC server in this process that gives every request the same answer, as a proxy before etcd may.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderValue, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// Dropping it ends it and its connections.
pub(crate) struct Refusing {
    address: SocketAddr,
    task: AbortHandle,
}

impl Refusing {
    /// Answers that nothing is implemented.
    pub(crate) async fn everything() -> Self {
        Self::with("12", None).await
    }

    /// Answers with a status whose details are not what gRPC demands.
    pub(crate) async fn with_malformed_details() -> Self {
        Self::with("14", Some("!!! not base64 !!!")).await
    }

    async fn with(status: &'static str, details: Option<&'static str>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from_static(status));
        headers.insert("grpc-message", HeaderValue::from_static("refused"));
        if let Some(details) = details {
            headers.insert("grpc-status-details-bin", HeaderValue::from_static(details));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(accept(listener, headers)).abort_handle();
        Self { address, task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, headers: HeaderMap) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, headers.clone()));
    }
}

/// A client that goes away ends this, which is no failure of the test.
async fn serve(stream: TcpStream, headers: HeaderMap) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (_, mut respond) = request?;
        let mut answer = Response::new(());
        *answer.headers_mut() = headers.clone();
        respond.send_response(answer, true)?;
    }
    Ok(())
}
