//! From HTTP/1.1 to WebSocket (RFC 6455, section 4), for both ends.

use std::io;

use bytes::{Buf, BytesMut};
use http::header::{
    CONNECTION, HOST, LOCATION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
#[cfg(any(test, feature = "server"))]
use http::{Method, Uri};
use httparse::Status;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

/// What a request or an answer may have in all.
const MOST_BYTES: usize = 16 * 1024;
const MOST_HEADERS: usize = 64;
const VERSION: &str = "13";

/// Why a connection does not become a WebSocket.
#[derive(Debug)]
pub(crate) enum UpgradeError {
    Io(io::Error),
    /// What came is no HTTP, or too long, or ended early.
    NotHttp(&'static str),
    /// The server answers this, and where to go if it says so.
    Status(StatusCode, Option<String>),
    /// The server agrees to something else than was asked for.
    Disagrees(&'static str),
}

impl From<io::Error> for UpgradeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Asks the server at the other end of `stream` for a WebSocket at `target`. Returns what it has sent behind its answer already. The
/// caller bounds the time. Not cancel-safe: `stream` is of no more use.
///
/// # Errors
/// Why there is none.
pub(crate) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    host: &str,
    target: &str,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<BytesMut, UpgradeError> {
    let key = generate_key();
    let mut request = format!(
        "GET {target} HTTP/1.1\r\n{HOST}: {host}\r\n{USER_AGENT}: sd-cluster/{}\r\n{CONNECTION}: Upgrade\r\n\
         {UPGRADE}: websocket\r\n{SEC_WEBSOCKET_VERSION}: {VERSION}\r\n{SEC_WEBSOCKET_KEY}: {key}\r\n",
        env!("CARGO_PKG_VERSION"),
    )
    .into_bytes();
    for (name, value) in headers {
        request.extend_from_slice(name.as_str().as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await?;
    stream.flush().await?;

    let mut read = BytesMut::new();
    let (status, headers) = read_head(stream, &mut read, parse_answer).await?;
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let place = headers.get(LOCATION);
        let place = place.and_then(|place| place.to_str().ok());
        return Err(UpgradeError::Status(status, place.map(str::to_owned)));
    }
    let accept = derive_accept_key(key.as_bytes());
    if headers
        .get(SEC_WEBSOCKET_ACCEPT)
        .is_none_or(|given| given.as_bytes() != accept.as_bytes())
    {
        return Err(UpgradeError::Disagrees(
            "its key does not match: another request was answered",
        ));
    }
    if !names(&headers, &UPGRADE, "websocket") || !names(&headers, &CONNECTION, "upgrade") {
        return Err(UpgradeError::Disagrees("it goes on with another protocol"));
    }
    if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS)
        || headers.contains_key(SEC_WEBSOCKET_PROTOCOL)
    {
        return Err(UpgradeError::Disagrees(
            "it chose an extension or a protocol, and none was offered",
        ));
    }
    Ok(read)
}

#[cfg(any(test, feature = "server"))]
/// What a client asks for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// The path with the query.
    pub(crate) target: Uri,
    pub(crate) headers: HeaderMap,
}

#[cfg(any(test, feature = "server"))]
/// Reads what the client at the other end of `stream` asks for. What it has sent behind that already is left in `read`, which is empty at
/// first. The caller bounds the time. Not cancel-safe.
///
/// # Errors
/// What came is no request.
pub(crate) async fn read_request<S: AsyncRead + Unpin>(
    stream: &mut S,
    read: &mut BytesMut,
) -> Result<Request, UpgradeError> {
    read_head(stream, read, parse_request).await
}

#[cfg(any(test, feature = "server"))]
impl Request {
    /// The answer that makes the connection a WebSocket. No extension is ever accepted: a client in Go takes one for an error.
    ///
    /// # Errors
    /// The status to refuse the request with: 405, 426 or 400.
    pub(crate) fn accept(&self) -> Result<Vec<u8>, StatusCode> {
        if !names(&self.headers, &CONNECTION, "upgrade")
            || !names(&self.headers, &UPGRADE, "websocket")
        {
            return Err(StatusCode::UPGRADE_REQUIRED);
        }
        if self.method != Method::GET {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        }
        let version = self.headers.get(SEC_WEBSOCKET_VERSION);
        let key = self.headers.get(SEC_WEBSOCKET_KEY);
        match (version, key) {
            (Some(version), Some(key)) if version == VERSION && is_key(key) => {
                let accept = derive_accept_key(key.as_bytes());
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\n{CONNECTION}: Upgrade\r\n{UPGRADE}: websocket\r\n\
                     {SEC_WEBSOCKET_ACCEPT}: {accept}\r\n\r\n"
                );
                Ok(answer.into_bytes())
            }
            _ => Err(StatusCode::BAD_REQUEST),
        }
    }
}

#[cfg(any(test, feature = "server"))]
/// Whether this is a key of 16 bytes in Base64.
fn is_key(key: &HeaderValue) -> bool {
    let key = key.as_bytes();
    key.len() == 24 && key.ends_with(b"==")
}

#[cfg(any(test, feature = "server"))]
/// An answer without a body, after which the connection ends.
pub(crate) fn refusal(status: StatusCode, headers: &[(HeaderName, HeaderValue)]) -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 {status}\r\n{CONNECTION}: close\r\ncontent-length: 0\r\n").into_bytes();
    for (name, value) in headers {
        answer.extend_from_slice(name.as_str().as_bytes());
        answer.extend_from_slice(b": ");
        answer.extend_from_slice(value.as_bytes());
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"\r\n");
    answer
}

/// Whether a header that lists words has this one.
fn names(headers: &HeaderMap, header: &HeaderName, word: &str) -> bool {
    headers
        .get_all(header)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|named| named.trim().eq_ignore_ascii_case(word))
}

/// What was read, and of how many bytes. `None` as long as more is needed.
type Parsed<T> = Result<Option<(usize, T)>, UpgradeError>;

/// What `parse` makes of the beginning of a stream.
async fn read_head<S: AsyncRead + Unpin, T>(
    stream: &mut S,
    read: &mut BytesMut,
    parse: impl Fn(&[u8]) -> Parsed<T>,
) -> Result<T, UpgradeError> {
    loop {
        if stream.read_buf(read).await? == 0 {
            return Err(UpgradeError::NotHttp(
                "the connection ended before the end of the headers",
            ));
        }
        if let Some((used, head)) = parse(read)? {
            read.advance(used);
            return Ok(head);
        }
        if read.len() >= MOST_BYTES {
            return Err(UpgradeError::NotHttp("the headers are too long"));
        }
    }
}

fn parse_answer(bytes: &[u8]) -> Parsed<(StatusCode, HeaderMap)> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let parsed = answer.parse(bytes).map_err(|_| not_http())?;
    let Status::Complete(used) = parsed else {
        return Ok(None);
    };
    let status = StatusCode::from_u16(answer.code.unwrap_or_default()).map_err(|_| not_http())?;
    Ok(Some((used, (status, collect(answer.headers)?))))
}

#[cfg(any(test, feature = "server"))]
fn parse_request(bytes: &[u8]) -> Parsed<Request> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request.parse(bytes).map_err(|_| not_http())?;
    let Status::Complete(used) = parsed else {
        return Ok(None);
    };
    let method = request.method.unwrap_or_default();
    let target = request.path.unwrap_or_default();
    let read = Request {
        method: method.parse().map_err(|_| not_http())?,
        target: target.parse().map_err(|_| not_http())?,
        headers: collect(request.headers)?,
    };
    Ok(Some((used, read)))
}

fn collect(headers: &[httparse::Header<'_>]) -> Result<HeaderMap, UpgradeError> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for header in headers {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| not_http())?;
        let value = HeaderValue::from_bytes(header.value).map_err(|_| not_http())?;
        map.append(name, value);
    }
    Ok(map)
}

fn not_http() -> UpgradeError {
    UpgradeError::NotHttp("what came is no HTTP")
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn answered(answer: impl FnOnce(&Request) -> Vec<u8>) -> Result<BytesMut, UpgradeError> {
        let (mut client, mut server) = duplex(4096);
        let header = (
            HeaderName::from_static("authorization"),
            HeaderValue::from_static("Bearer x"),
        );
        let headers = [header];
        let asking = ask(
            &mut client,
            "h:9001",
            "/isp-etp/?module_name=a+b%26c",
            &headers,
        );
        let answering = async {
            let mut read = BytesMut::new();
            let request = read_request(&mut server, &mut read).await.unwrap();
            assert!(read.is_empty());
            assert_eq!(request.target.query(), Some("module_name=a+b%26c"));
            assert_eq!(request.headers["host"], "h:9001");
            assert_eq!(request.headers["authorization"], "Bearer x");
            server.write_all(&answer(&request)).await.unwrap();
            drop(server);
        };
        tokio::join!(asking, answering).0
    }

    #[tokio::test]
    async fn two_ends_agree_and_what_comes_at_once_is_kept() {
        let read = answered(|request| {
            let mut answer = request.accept().unwrap();
            answer.extend_from_slice(b"\x81\x02hi");
            answer
        });
        assert_eq!(&read.await.unwrap()[..], b"\x81\x02hi");
    }

    #[tokio::test]
    async fn a_refusal_carries_its_status_and_its_place() {
        let place = HeaderValue::from_static("/isp-etp/?module_name=a");
        let answer = refusal(StatusCode::MOVED_PERMANENTLY, &[(LOCATION, place)]);
        match answered(|_| answer).await {
            Err(UpgradeError::Status(status, Some(place))) => {
                assert_eq!((status.as_u16(), &place[..8]), (301, "/isp-etp"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_not_to_this_request_is_refused() {
        let accepted = |request: &Request, extra: &str| {
            let answer = String::from_utf8(request.accept().unwrap()).unwrap();
            answer
                .replacen("\r\n", &format!("\r\n{extra}"), 1)
                .into_bytes()
        };
        let other_key = answered(|_| {
            let answer = "HTTP/1.1 101 x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: x\r\n\r\n";
            answer.as_bytes().to_vec()
        });
        let extension = answered(|request| {
            accepted(request, "sec-websocket-extensions: permessage-deflate\r\n")
        });
        for refused in [other_key.await, extension.await] {
            assert!(
                matches!(refused, Err(UpgradeError::Disagrees(_))),
                "{refused:?}"
            );
        }
        for garbage in [&b"SSH-2.0-x\r\n\r\n"[..], b"HTTP/1.1 101"] {
            let refused = answered(|_| garbage.to_vec()).await;
            assert!(
                matches!(refused, Err(UpgradeError::NotHttp(_))),
                "{refused:?}"
            );
        }
    }

    #[tokio::test]
    async fn headers_without_end_are_given_up() {
        let endless = answered(|_| {
            let mut answer = b"HTTP/1.1 101 x\r\na: ".to_vec();
            answer.resize(MOST_BYTES + 1, b'x');
            answer
        });
        let refused = tokio::time::timeout(std::time::Duration::from_secs(60), endless).await;
        assert!(
            matches!(refused, Ok(Err(UpgradeError::NotHttp(_)))),
            "{refused:?}"
        );
    }

    #[test]
    fn a_request_that_is_no_upgrade_is_refused_as_go_does() {
        let request = |text: &str| parse_request(text.as_bytes()).unwrap().unwrap().1;
        let upgrade = "connection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n";
        let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        for (text, status) in [
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), 426),
            (format!("POST / HTTP/1.1\r\n{upgrade}\r\n"), 405),
            (format!("GET / HTTP/1.1\r\n{upgrade}{key}\r\n"), 400),
            (
                format!("GET / HTTP/1.1\r\n{upgrade}sec-websocket-version: 13\r\n\r\n"),
                400,
            ),
        ] {
            assert_eq!(
                request(&text).accept().unwrap_err().as_u16(),
                status,
                "{text}"
            );
        }
        let good = format!("GET / HTTP/1.1\r\n{upgrade}{key}sec-websocket-version: 13\r\n\r\n");
        let answer = String::from_utf8(request(&good).accept().unwrap()).unwrap();
        // The example of RFC 6455, section 1.3.
        assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    }
}
