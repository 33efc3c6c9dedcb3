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
use sd_core::{Error, brief};
use sd_sidecar::tls::ClientTls;
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
    /// Counts where the place asks for TLS.
    pub(super) tls: ClientTls,
    pub(super) token: Option<Secret>,
    /// How long one request may take.
    pub(super) within: Duration,
}

#[derive(Debug)]
pub(super) enum Place {
    Tcp(String),
    Tls {
        /// `host:port`.
        address: String,
        /// Without brackets.
        host: String,
    },
    Unix(PathBuf),
}

/// Why there is no answer.
pub(super) struct Unanswered {
    /// As the end of a sentence.
    pub(super) why: String,
    pub(super) exit: Exit,
}

/// What was answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Api {
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        header: Option<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Result<Answer, Unanswered> {
        let (why, exit) =
            match timeout(self.within, self.exchange(method, path, header, body)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => {
                    let (why, exit) = match error.downcast::<Error>() {
                        Ok(error) => (error.report().to_string(), Exit::of(&error)),
                        Err(error) => (last_cause(&*error), Exit::Unreachable),
                    };
                    (format!("cannot be asked: {why}"), exit)
                }
                Err(_) => {
                    let limit = humantime::format_duration(self.within);
                    let why = format!("did not answer within {limit}");
                    (why, Exit::Unreachable)
                }
            };
        Err(Unanswered { why, exit })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        header: Option<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let host = match &self.place {
            Place::Tcp(address) | Place::Tls { address, .. } => address.as_str(),
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
            Place::Tls { address, host } => {
                let stream = TcpStream::connect(address).await?;
                let secured = self.tls.connect(host, stream).await?;
                let answer = send(secured.stream, request).await;
                answer.map_err(|error| secured.standing.explained(&last_cause(&*error)).into())
            }
            Place::Unix(path) => send(UnixStream::connect(path).await?, request).await,
        }
    }
}

/// What happened. The causes before it only say where.
fn last_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    brief(cause)
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
    /// `None` unless it is `http://host:port`, `https://host:port`, `host:port` or `unix:/path`.
    pub(super) fn of(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = Path::new(path);
            return path.is_absolute().then(|| Self::Unix(path.to_owned()));
        }
        let (address, is_tls) = match text.strip_prefix("https://") {
            Some(address) => (address, true),
            None => (text.strip_prefix("http://").unwrap_or(text), false),
        };
        let address = address.strip_suffix('/').unwrap_or(address);
        let (host, port) = address.rsplit_once(':')?;
        // `tls:host:port` is where an agent listens, and no URL.
        let is_host = !host.is_empty() && (host.starts_with('[') || !host.contains(':'));
        let is_address = is_host && port.parse::<u16>().is_ok() && !address.contains(['/', '@']);
        if !is_address {
            return None;
        }
        let address = address.to_owned();
        Some(if is_tls {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Self::Tls {
                address,
                host: host.to_owned(),
            }
        } else {
            Self::Tcp(address)
        })
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
        for (text, address, host) in [
            ("https://localhost:1/", "localhost:1", "localhost"),
            ("https://[::1]:2", "[::1]:2", "::1"),
        ] {
            let Some(Place::Tls {
                address: at,
                host: name,
            }) = Place::of(text)
            else {
                panic!("{text}");
            };
            assert_eq!((at.as_str(), name.as_str()), (address, host));
        }
        assert!(matches!(
            Place::of("unix:/run/a.sock"),
            Some(Place::Unix(_))
        ));
        for text in [
            "",
            "localhost",
            "unix:a.sock",
            "https://h",
            "tls:10.0.0.7:15443",
            "https://h:1/path",
            "http://h:1/path",
            ":1",
            "h:70000",
            "http://u:hunter2@h:1",
            "u:hunter2@h:1",
            "https://u:hunter2@h:1",
            "http://u:hunter2/@h:1",
        ] {
            assert!(Place::of(text).is_none(), "{text}");
        }
    }
}
