//! HTTP/1.1 to the agent, over TCP, TLS or a Unix socket. Each request has a connection of its own: there are few, and the agent is near.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::address::{AgentAddress, Place};
use super::error::{AgentError, Result};
#[cfg(feature = "tls")]
use crate::tls::ClientTls;

/// The most that is read of an answer. It repeats what was sent, twice.
const MOST_ANSWER_BYTES: usize = 4 << 20;

/// A client of one agent. Cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    address: AgentAddress,
    /// The most that a request may take, and a connection until its first answer.
    within: Duration,
    authorization: Option<HeaderValue>,
    #[cfg(feature = "tls")]
    tls: ClientTls,
}

impl HttpClient {
    /// A client of the agent at `base_url`: `http://host:port`, `unix:/path`, or with the feature `tls` `https://host:port`. `within` is
    /// what one request may take.
    ///
    /// # Errors
    /// `Invalid` says what to write.
    pub fn new(base_url: &str, within: Duration) -> Result<Self> {
        Ok(Self {
            address: AgentAddress::parse(base_url)?,
            within,
            authorization: None,
            #[cfg(feature = "tls")]
            tls: ClientTls::new(),
        })
    }

    /// Sets whom to trust over TLS, and what to show. By default what [`ClientTls`] says. Over a Unix socket it counts for nothing. Reads
    /// the files that it names; blocks while it does, for no longer than a request may take.
    ///
    /// # Errors
    /// `Invalid` names the setting that is wrong or whose file cannot be read. So it does for an address with `http://`, where nothing would
    /// be secret.
    #[cfg(feature = "tls")]
    pub fn with_tls(mut self, tls: ClientTls) -> Result<Self> {
        if matches!(self.address.place, Place::Tcp { .. }) && tls.is_set() {
            let why = format!(
                "settings of TLS are set, and the address of the agent is {}: write https://, or leave them out",
                self.address
            );
            return Err(AgentError::Invalid(why));
        }
        tls.check(self.within)
            .map_err(|error| AgentError::Invalid(error.report().to_string()))?;
        self.tls = tls;
        Ok(self)
    }

    /// Sends this token with each request.
    ///
    /// # Errors
    /// `Invalid` if it holds what no header can.
    pub fn with_token(mut self, token: &str) -> Result<Self> {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
            AgentError::Invalid("the token holds characters that no header can".to_owned())
        })?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    /// Posts JSON, and returns the status with the body.
    pub(crate) async fn post(&self, path: &str, json: Vec<u8>) -> Result<(StatusCode, Bytes)> {
        let what = format!("POST {path}");
        let request = self
            .request(Method::POST, path)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .body(Full::new(Bytes::from(json)));
        let asking = async {
            let answer = self
                .send(request.map_err(|error| self.failed(&what, error))?, &what)
                .await?;
            let (status, body) = (answer.response.status(), answer.response.into_body());
            let body = Limited::new(body, MOST_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| self.failed(&what, error))?;
            Ok((status, body.to_bytes()))
        };
        self.bounded(&what, asking).await
    }

    /// Opens a stream of events. Only what comes before its first bytes is bounded in time.
    pub(crate) async fn open(&self, path: &str) -> Result<Answer> {
        let what = format!("GET {path}");
        let request = self
            .request(Method::GET, path)
            .header(ACCEPT, "text/event-stream")
            .body(Full::new(Bytes::new()));
        let request = request.map_err(|error| self.failed(&what, error))?;
        self.bounded(&what, self.send(request, &what)).await
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(self.address.join(path))
            .header(HOST, self.address.host())
            // Nothing here unpacks.
            .header(ACCEPT_ENCODING, "identity");
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        }
    }

    async fn send(&self, request: Request<Full<Bytes>>, what: &str) -> Result<Answer> {
        match &self.address.place {
            Place::Tcp { host, port } => {
                let stream = self.dial(host, *port, what).await?;
                self.exchange(TokioIo::new(stream), request, what).await
            }
            #[cfg(feature = "tls")]
            Place::Tls { host, port } => {
                let stream = self.dial(host, *port, what).await?;
                self.exchange_secured(host, stream, request, what).await
            }
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.map_err(|error| self.failed(what, error))?;
                self.exchange(TokioIo::new(stream), request, what).await
            }
        }
    }

    async fn dial(&self, host: &str, port: u16, what: &str) -> Result<TcpStream> {
        let stream = TcpStream::connect((host, port)).await;
        let stream = stream.map_err(|error| self.failed(what, error))?;
        // A lost byte less matters more than a packet.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    #[cfg(feature = "tls")]
    async fn exchange_secured(
        &self,
        host: &str,
        stream: TcpStream,
        request: Request<Full<Bytes>>,
        what: &str,
    ) -> Result<Answer> {
        // On the heap: it is large, and each request would hold it.
        let secured = Box::pin(self.tls.connect(host, stream)).await;
        let secured =
            secured.map_err(|error| AgentError::transport(self.named(what), error.report()))?;
        let (stream, standing) = (secured.stream, secured.standing);
        let answer = self.exchange(TokioIo::new(stream), request, what).await;
        answer.map_err(|error| match error {
            AgentError::Transport { what, reason } => AgentError::Transport {
                what,
                reason: standing.explained(&reason),
            },
            error => error,
        })
    }

    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
        what: &str,
    ) -> Result<Answer>
    where
        S: Read + Write + Unpin + Send + 'static,
    {
        let handshake = http1::handshake(stream).await;
        let (mut sender, connection) = handshake.map_err(|error| self.failed(what, error))?;
        let connection = Connection(tokio::spawn(async move {
            // What fails here, the request tells.
            let _ = connection.await;
        }));
        let response = sender.send_request(request).await;
        Ok(Answer {
            response: response.map_err(|error| self.failed(what, error))?,
            _connection: connection,
        })
    }

    async fn bounded<T>(&self, what: &str, asking: impl Future<Output = Result<T>>) -> Result<T> {
        timeout(self.within, asking).await.unwrap_or_else(|_| {
            Err(AgentError::TimedOut {
                what: self.named(what),
                after: self.within,
            })
        })
    }

    /// What is asked, and where.
    pub(crate) fn named(&self, what: &str) -> String {
        format!("{what} at {}", self.address)
    }

    fn failed(
        &self,
        what: &str,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> AgentError {
        // The last cause says what happened; those before only where.
        let error = error.into();
        let mut cause: &dyn std::error::Error = &*error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        AgentError::transport(self.named(what), cause)
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("address", &self.address.to_string())
            .field("within", &self.within)
            .field("has_token", &self.authorization.is_some())
            .finish_non_exhaustive()
    }
}

/// An answer, and the connection that it comes over.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    _connection: Connection,
}

/// Ends the connection when it is dropped.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}
