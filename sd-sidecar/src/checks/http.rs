//! `GET` at an HTTP server.

use std::pin::pin;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sd_core::Endpoint;

use super::dial::{Authority, LookUps, dial};
use super::probe::Answer;
use crate::wire::HttpTarget;

/// How servers' logs name the checks.
pub(super) const AGENT: &str = concat!("sd-checks/", env!("CARGO_PKG_VERSION"));

/// What is read of an answer: its head. The body of a server that a caller may not ask itself is not shown to the caller.
const MOST_BYTES: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct HttpProbe {
    endpoint: Endpoint,
    path: Uri,
    host: HeaderValue,
}

impl HttpProbe {
    pub(super) fn new(url: Option<&str>, target: &Endpoint) -> Result<Self, String> {
        let HttpTarget { endpoint, path } =
            HttpTarget::parse(url.unwrap_or(HttpTarget::DEFAULT_PATH))?;
        let endpoint = endpoint.unwrap_or_else(|| target.clone());
        let path = path.parse().map_err(|error| format!("url: {error}"))?;
        let host = HeaderValue::try_from(Authority(&endpoint).to_string());
        let host = host.map_err(|error| format!("url: {error}"))?;
        Ok(Self {
            endpoint,
            path,
            host,
        })
    }

    pub(super) async fn attempt(&self, look_ups: &LookUps) -> Answer {
        let connection = TokioIo::new(dial(&self.endpoint, look_ups).await?);
        let failed = |error: hyper::Error| format!("HTTP at {}: {error}", self.endpoint);
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MOST_BYTES)
            .handshake(connection)
            .await
            .map_err(failed)?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let mut answer = pin!(sender.send_request(request));
        // The connection may end with the answer.
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = connection => answer.await,
        };
        let status = answer.map_err(failed)?.status();
        let told = format!("HTTP {status}");
        if status.is_success() {
            Ok(told)
        } else {
            Err(told)
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that reads one request and says this. Returns the request as well.
    async fn served(url: &str, says: &[u8]) -> (Answer, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let probe = HttpProbe::new(Some(url), &address.parse().unwrap()).unwrap();
        let server = async {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(connection.read_u8().await.unwrap());
            }
            // One that has heard enough may be gone.
            let _ = connection.write_all(says).await;
            String::from_utf8(request)
                .unwrap()
                .replace(&address, "HERE")
        };
        let look_ups = LookUps::default();
        tokio::join!(probe.attempt(&look_ups), server)
    }

    #[tokio::test]
    async fn it_asks_as_any_client_does() {
        let (answer, request) = served("/ready?deep=1", b"HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(answer.unwrap(), "HTTP 204 No Content");
        let expected = format!(
            "GET /ready?deep=1 HTTP/1.1\r\nhost: HERE\r\nuser-agent: {AGENT}\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(request, expected);
    }

    #[tokio::test]
    async fn only_a_success_passes_and_of_a_failure_no_more_than_the_status_is_told() {
        let endless = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'a'; 100_000]].concat();
        for (says, expected) in [
            (
                &b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"[..],
                Ok("HTTP 200 OK"),
            ),
            (
                b"HTTP/1.0 200 OK\r\n\r\nclosed by its end",
                Ok("HTTP 200 OK"),
            ),
            (
                b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n",
                Err("HTTP 302 Found"),
            ),
            (
                b"HTTP/1.1 503 secret\r\ncontent-length: 6\r\n\r\nsecret",
                Err("HTTP 503 Service Unavailable"),
            ),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Err("HTTP at HERE: ")),
            (b"", Err("HTTP at HERE: ")),
            (&endless, Err("HTTP at HERE: ")),
        ] {
            let (answer, request) = served("/", says).await;
            let host = request.lines().find_map(|line| line.strip_prefix("host: "));
            assert_eq!(host, Some("HERE"));
            match expected {
                Ok(expected) => assert_eq!(answer.unwrap(), expected),
                Err(expected) => {
                    let error = answer.unwrap_err();
                    let expected = expected.trim_end_matches("HERE: ");
                    assert!(error.starts_with(expected), "{error}");
                    assert!(!error.contains("secret") && error.len() < 256, "{error}");
                }
            }
        }
    }

    #[tokio::test]
    async fn it_asks_where_its_url_says_also_at_a_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let target = Endpoint::unix(&path).unwrap();
        let probe = HttpProbe::new(None, &target).unwrap();
        let server = async {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 64];
            connection.read_exact(&mut request).await.unwrap();
            connection
                .write_all(b"HTTP/1.1 200 OK\r\n\r\n")
                .await
                .unwrap();
            String::from_utf8(request).unwrap()
        };
        let look_ups = LookUps::default();
        let (answer, request) = tokio::join!(probe.attempt(&look_ups), server);
        answer.unwrap();
        let head = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n";
        assert!(request.starts_with(head), "{request}");

        let probe = HttpProbe::new(Some("http://127.0.0.1:1/x"), &target).unwrap();
        let error = probe.attempt(&LookUps::default()).await.unwrap_err();
        assert!(error.contains("cannot connect to 127.0.0.1:1"), "{error}");
    }
}
