//! Requests to a local agent.

use std::path::{Path, PathBuf};

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sd_backend::Secret;
use sd_core::brief;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::cli::arguments::AtAgent;
use crate::exit::Exit;
use crate::failure::Failure;

/// The answer of an agent with as many registrations as it may have.
const MOST_BYTES: usize = 256 * 1024 * 1024;

/// One agent, and how it is asked.
pub(super) struct Agent<'a> {
    at: &'a AtAgent,
    place: Place,
    token: Option<Secret>,
}

enum Place {
    Tcp(String),
    Unix(PathBuf),
}

impl<'a> Agent<'a> {
    pub(super) fn new(at: &'a AtAgent) -> Result<Self, Failure> {
        Ok(Self {
            at,
            place: Place::of(&at.agent)?,
            token: token(at)?,
        })
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::POST, path, Bytes::from(body.to_string()))
            .await
    }

    /// A part of an answer as what it should be.
    pub(super) fn read<T: DeserializeOwned>(&self, answer: &Value) -> Result<T, Failure> {
        T::deserialize(answer).map_err(|_| self.failure("answers something else than an agent"))
    }

    fn failure(&self, why: &str) -> Failure {
        Failure::new(format!("the agent at {} {why}", self.at.agent)).with(Exit::Unreachable)
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Value, Failure> {
        let answered = timeout(self.at.wait.timeout, self.exchange(method, path, body)).await;
        let (status, body) = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let why = format!(
                    "cannot be asked: {error}; try: --agent unix:/run/sd-agent.sock, or look whether it runs"
                );
                return Err(self.failure(&why));
            }
            Err(_) => {
                let limit = humantime::format_duration(self.at.wait.timeout);
                return Err(self.failure(&format!("did not answer within {limit}")));
            }
        };
        let answer: Value = serde_json::from_slice(&body)
            .map_err(|_| self.failure("answers something else than an agent"))?;
        if status.is_success() {
            return Ok(answer);
        }
        let said = answer["message"]
            .as_str()
            .map_or_else(|| status.to_string(), brief);
        let exit = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Denied,
            StatusCode::CONFLICT | StatusCode::BAD_REQUEST => Exit::Misused,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Exit::Unreachable,
            _ => Exit::Failed,
        };
        Err(self.failure(&format!("refuses: {said}")).with(exit))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let host = match &self.place {
            Place::Tcp(address) => address.as_str(),
            Place::Unix(_) => "localhost",
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json");
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
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST_BYTES)
            .collect()
            .await?;
        Ok((status, body.to_bytes()))
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

impl Place {
    fn of(text: &str) -> Result<Self, Failure> {
        let wrong = || {
            let line = "expected the agent as http://host:port, host:port or unix:/path; try: sdctl agent --help";
            Failure::new(line).with(Exit::Misused)
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = Path::new(path);
            return if path.is_absolute() {
                Ok(Self::Unix(path.to_owned()))
            } else {
                Err(wrong())
            };
        }
        let address = text.strip_prefix("http://").unwrap_or(text);
        let address = address.strip_suffix('/').unwrap_or(address);
        let has_port = address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if has_port && !address.contains(['/', '@']) {
            Ok(Self::Tcp(address.to_owned()))
        } else {
            Err(wrong())
        }
    }
}

/// The token: not a flag, which every user of the host could read.
fn token(at: &AtAgent) -> Result<Option<Secret>, Failure> {
    let Some(path) = &at.token_file else {
        let variable = std::env::var("SDCTL_AGENT_TOKEN").ok();
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
    fn an_agent_is_named_by_address_or_socket() {
        for (text, address) in [
            ("http://127.0.0.1:15010/", "127.0.0.1:15010"),
            ("localhost:1", "localhost:1"),
            ("[::1]:2", "[::1]:2"),
        ] {
            assert!(
                matches!(Place::of(text), Ok(Place::Tcp(found)) if found == address),
                "{text}"
            );
        }
        assert!(matches!(Place::of("unix:/run/a.sock"), Ok(Place::Unix(_))));
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
            let Err(failure) = Place::of(text) else {
                panic!("{text}");
            };
            assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
        }
    }
}
