//! A small HTTP client, which shows what is on the wire.

use std::net::SocketAddr;

use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sd_testing::LONG;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Asks one server, with a connection for each request.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient {
    address: SocketAddr,
    headers: Vec<(&'static str, String)>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl HttpClient {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            headers: Vec::new(),
        }
    }

    /// The same client with this header in each request.
    pub(crate) fn with(&self, name: &'static str, value: impl Into<String>) -> Self {
        let mut client = self.clone();
        client.headers.push((name, value.into()));
        client
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask(Method::GET, path, "").await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.ask(Method::DELETE, path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask(Method::POST, path, body.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Reply {
        self.ask(Method::PUT, path, body.to_string()).await
    }

    /// Asks, and reads the whole answer.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Reply {
        let what = format!("{method} {path}");
        let answered = async {
            let (response, connection) = self.send(method, path, body.into()).await;
            let (head, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            connection.abort();
            Reply {
                status: head.status,
                headers: head.headers,
                body,
            }
        };
        let answer = timeout(LONG, answered).await;
        answer.unwrap_or_else(|_| panic!("no answer to {what} within {LONG:?}"))
    }

    /// Opens a stream of events, which must be accepted.
    pub(crate) async fn events(&self, path: &str) -> SseStream {
        let (response, connection) = self.send(Method::GET, path, Bytes::new()).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let kind = response.headers().get(CONTENT_TYPE).unwrap();
        assert_eq!(kind, "text/event-stream", "{path}");
        SseStream {
            headers: response.headers().clone(),
            body: response.into_body(),
            connection,
            read: Vec::new(),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> (hyper::Response<Incoming>, JoinHandle<()>) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        // It ends with an error when a server hangs up, which its reader sees.
        let connection = tokio::spawn(async move { drop(connection.await) });
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string())
            .header(ACCEPT, "*/*");
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body)).unwrap();
        (sender.send_request(request).await.unwrap(), connection)
    }
}

impl Reply {
    /// The body, which must be JSON and say so.
    pub(crate) fn json(&self) -> Value {
        let kind = self.headers.get(CONTENT_TYPE);
        assert_eq!(kind.unwrap(), "application/json", "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The JSON of an answer with this status.
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }

    /// The text of a header that is there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        let value = value.unwrap_or_else(|| panic!("no {name} in {self:?}"));
        value.to_str().unwrap()
    }
}

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) id: Option<String>,
    pub(crate) event: Option<String>,
    pub(crate) data: String,
    pub(crate) comment: Option<String>,
}

impl Frame {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }

    pub(crate) fn event(&self) -> &str {
        self.event.as_deref().unwrap_or_default()
    }

    pub(crate) fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }
}

/// A stream of events. Dropping it ends its connection, as a client that is killed does.
#[derive(Debug)]
pub(crate) struct SseStream {
    pub(crate) headers: HeaderMap,
    body: Incoming,
    connection: JoinHandle<()>,
    read: Vec<u8>,
}

impl SseStream {
    /// The next frame, or nothing at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let next = timeout(LONG, async {
            loop {
                if let Some(frame) = self.take_frame() {
                    return Some(frame);
                }
                let part = self.body.frame().await?.ok()?;
                self.read.extend(part.into_data().unwrap());
            }
        });
        next.await
            .unwrap_or_else(|_| panic!("no frame within {LONG:?}"))
    }

    /// The next frame that is no sign of life.
    pub(crate) async fn event(&mut self) -> Frame {
        loop {
            let frame = self.next().await.expect("the stream has ended");
            if frame.event() != "heartbeat" && frame.event.is_some() {
                return frame;
            }
        }
    }

    /// The next event of this name; others are passed over.
    pub(crate) async fn event_named(&mut self, name: &str) -> Frame {
        loop {
            let frame = self.event().await;
            if frame.event() == name {
                return frame;
            }
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let end = self.read.windows(2).position(|two| two == b"\n\n")?;
        let text: Vec<u8> = self.read.drain(..end + 2).collect();
        let text = String::from_utf8(text).unwrap();
        let mut frame = Frame::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (field, value) = line.split_once(": ").unwrap_or((line, ""));
            match field {
                "id" => frame.id = Some(value.to_owned()),
                "event" => frame.event = Some(value.to_owned()),
                "data" => {
                    if !frame.data.is_empty() {
                        frame.data.push('\n');
                    }
                    frame.data.push_str(value);
                }
                "" => frame.comment = Some(value.to_owned()),
                _ => panic!("a line that is no field of a stream: {line:?}"),
            }
        }
        Some(frame)
    }
}

impl Drop for SseStream {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
