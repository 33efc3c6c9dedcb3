//! Requests to an HTTP API of ours, the agent's or a config service's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sd_backend::Secret;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::exit::Exit;
use crate::failure::Failure;

/// The answer of an agent with as many registrations as it may have.
const MOST_BYTES: usize = 256 * 1024 * 1024;

/// Where an API is, and what it is shown.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) place: Place,
    pub(super) token: Option<Secret>,
    /// How long one request may take.
    pub(super) within: Duration,
}

#[derive(Debug)]
pub(super) enum Place {
    Tcp(String),
    Unix(PathBuf),
}

/// What was answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Api {
    /// # Errors
    /// Why there is no answer, as the end of a sentence.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        header: Option<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Result<Answer, String> {
        match timeout(self.within, self.exchange(method, path, header, body)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(format!("cannot be asked: {error}")),
            Err(_) => {
                let limit = humantime::format_duration(self.within);
                Err(format!("did not answer within {limit}"))
            }
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        header: Option<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let host = match &self.place {
            Place::Tcp(address) => address.as_str(),
            Place::Unix(_) => "localhost",
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json");
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        if let Some(token) = &self.token {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Full::new(body))?;
        match &self.place {
            Place::Tcp(address) => send(TcpStream::connect(address).await?, request).await,
            Place::Unix(path) => send(UnixStream::connect(path).await?, request).await,
        }
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MOST_BYTES).collect().await?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => {
            // What it had to say was said before.
            ended?;
            answer.await
        }
    }
}

/// How a command ends that an API refuses.
pub(super) fn exit_of(status: StatusCode) -> Exit {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Denied,
        StatusCode::CONFLICT | StatusCode::BAD_REQUEST => Exit::Misused,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

impl Place {
    /// `None` unless it is `http://host:port`, `host:port` or `unix:/path`.
    pub(super) fn of(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = Path::new(path);
            return path.is_absolute().then(|| Self::Unix(path.to_owned()));
        }
        let address = text.strip_prefix("http://").unwrap_or(text);
        let address = address.strip_suffix('/').unwrap_or(address);
        let has_port = address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        let is_address = has_port && !address.contains(['/', '@']);
        is_address.then(|| Self::Tcp(address.to_owned()))
    }
}

/// The token in a file, and else in an environment variable: not a flag, which every user of the host could read.
pub(super) fn token(file: Option<&Path>, variable: &str) -> Result<Option<Secret>, Failure> {
    let Some(path) = file else {
        let variable = std::env::var(variable).ok();
        return Ok(variable.filter(|token| !token.is_empty()).map(Secret::new));
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(format!("cannot read {}: {error}", path.display())).with(Exit::Misused)
    })?;
    Ok(Some(Secret::new(text.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_is_named_by_address_or_socket() {
        for (text, address) in [
            ("http://127.0.0.1:15010/", "127.0.0.1:15010"),
            ("localhost:1", "localhost:1"),
            ("[::1]:2", "[::1]:2"),
        ] {
            assert!(
                matches!(Place::of(text), Some(Place::Tcp(found)) if found == address),
                "{text}"
            );
        }
        assert!(matches!(
            Place::of("unix:/run/a.sock"),
            Some(Place::Unix(_))
        ));
        for text in [
            "",
            "localhost",
            "unix:a.sock",
            "https://h:1",
            "http://h:1/path",
            ":1",
            "h:70000",
            "http://u:hunter2@h:1",
            "u:hunter2@h:1",
            "http://u:hunter2/@h:1",
        ] {
            assert!(Place::of(text).is_none(), "{text}");
        }
    }
}
