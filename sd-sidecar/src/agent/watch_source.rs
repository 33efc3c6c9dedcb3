//! Watches the agent's stream, and connects again when it ends.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream;
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::error::{AgentError, Result};
use super::event::{ConnectionEvent, EventKind};
use super::http::HttpClient;
use super::parts::{ConnectionEvents, EventSource};
#[cfg(feature = "tls")]
use crate::tls::ClientTls;
use crate::wire::sse;

/// How many events wait for a reader that is slow.
const QUEUE: usize = 8;

/// The stream of an agent, for as long as its events are read.
#[derive(Clone, Debug)]
pub struct WatchSource {
    http: Option<HttpClient>,
    path: String,
    pauses: Pauses,
    silence: Duration,
}

/// How long to wait before the next attempt to connect.
#[derive(Clone, Copy, Debug)]
struct Pauses {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Pauses {
    /// At least the first one, at random up to twice as much after each failure in a row.
    fn next(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let most = self
            .first
            .saturating_mul(factor)
            .min(self.longest.max(self.first));
        self.first + most.saturating_sub(self.first).mul_f64(fastrand::f64())
    }
}

impl WatchSource {
    /// The longest pause between two attempts to connect.
    pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);
    /// Three heartbeats of an agent, which sends one every 5 s.
    pub const DEFAULT_SILENCE: Duration = Duration::from_secs(15);

    /// Watches `path` of an agent, by default [`DEFAULT_WATCH_PATH`](super::DEFAULT_WATCH_PATH). `reconnect_interval` is the shortest
    /// pause before it connects again. Pauses grow up to [`LONGEST_PAUSE`](Self::LONGEST_PAUSE), at random, and start over when the
    /// agent has said that it is connected.
    pub fn new(http: HttpClient, path: impl Into<String>, reconnect_interval: Duration) -> Self {
        Self::with(Some(http), path.into(), reconnect_interval)
    }

    /// Watches the stream at a URL of its own.
    ///
    /// # Errors
    /// `Invalid` if it is none. An empty one is an error of [`subscribe`](EventSource::subscribe).
    pub fn at(
        watch_url: &str,
        request_timeout: Duration,
        reconnect_interval: Duration,
    ) -> Result<Self> {
        let http = match watch_url.trim() {
            "" => None,
            url => Some(HttpClient::new(url, request_timeout)?),
        };
        Ok(Self::with(http, String::new(), reconnect_interval))
    }

    fn with(http: Option<HttpClient>, path: String, first: Duration) -> Self {
        Self {
            http,
            path,
            pauses: Pauses {
                first: first.max(Duration::from_millis(1)),
                longest: Self::LONGEST_PAUSE,
                failures: 0,
            },
            silence: Self::DEFAULT_SILENCE,
        }
    }

    /// Sets how long the stream may be silent before it counts as lost. Comments are signs of life as well. Default
    /// [`DEFAULT_SILENCE`](Self::DEFAULT_SILENCE).
    #[must_use]
    pub fn with_silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// Sends this token.
    ///
    /// # Errors
    /// As [`HttpClient::with_token`].
    pub fn with_token(mut self, token: &str) -> Result<Self> {
        self.http = self.http.map(|http| http.with_token(token)).transpose()?;
        Ok(self)
    }

    /// Sets whom to trust over TLS, and what to show.
    ///
    /// # Errors
    /// As [`HttpClient::with_tls`].
    #[cfg(feature = "tls")]
    pub fn with_tls(mut self, tls: ClientTls) -> Result<Self> {
        self.http = self.http.map(|http| http.with_tls(tls)).transpose()?;
        Ok(self)
    }
}

#[async_trait]
impl EventSource for WatchSource {
    async fn subscribe(&self) -> Result<ConnectionEvents> {
        let http = self.http.clone().ok_or(AgentError::WatchUrlRequired)?;
        let (events, queue) = mpsc::channel(QUEUE);
        let watch = Watch {
            http,
            path: self.path.clone(),
            pauses: self.pauses,
            silence: self.silence,
            events,
        };
        let task = Task(tokio::spawn(watch.run()));
        let events = stream::unfold((queue, task), async |(mut queue, task)| {
            let event = queue.recv().await?;
            Some((event, (queue, task)))
        });
        Ok(Box::pin(events))
    }
}

/// Ends with the stream of events.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Watch {
    http: HttpClient,
    path: String,
    pauses: Pauses,
    silence: Duration,
    events: mpsc::Sender<ConnectionEvent>,
}

/// Why one connection ended.
enum Ended {
    /// The events are read no more.
    Unread,
    Failed(AgentError),
}

impl From<AgentError> for Ended {
    fn from(error: AgentError) -> Self {
        Self::Failed(error)
    }
}

impl Watch {
    async fn run(mut self) {
        loop {
            let error = match self.connection().await {
                Ok(()) => AgentError::WatchStreamClosed,
                Err(Ended::Failed(error)) => error,
                Err(Ended::Unread) => return,
            };
            let pause = self.pauses.next();
            tracing::debug!(%error, ?pause, "the watch stream of the agent has ended");
            let ended = ConnectionEvent::disconnected(error);
            if self.events.send(ended).await.is_err() {
                return;
            }
            sleep(pause).await;
        }
    }

    /// Reads one stream to its end.
    async fn connection(&mut self) -> std::result::Result<(), Ended> {
        let mut answer = self.http.open(&self.path).await?;
        let status = answer.response.status();
        if status != StatusCode::OK {
            return Err(Ended::Failed(AgentError::WatchHttpStatus {
                code: status.as_u16(),
                status: status.to_string(),
            }));
        }
        let mut reader = sse::Reader::default();
        let mut frames = Vec::new();
        let body = answer.response.body_mut();
        loop {
            let next = timeout(self.silence, body.frame()).await;
            let next = next.map_err(|_| AgentError::WatchStreamSilent {
                after: self.silence,
            })?;
            let Some(part) = next else { break };
            let failed = |reason: &dyn std::fmt::Display| {
                AgentError::transport(self.http.named("watch"), reason)
            };
            let part = part.map_err(|error| failed(&error))?;
            if let Some(bytes) = part.data_ref() {
                reader
                    .push(bytes, |frame| frames.push(frame))
                    .map_err(|error| failed(&error))?;
            }
            for frame in frames.drain(..) {
                Self::tell(&self.events, &mut self.pauses, frame).await?;
            }
        }
        if let Some(frame) = reader.finish() {
            Self::tell(&self.events, &mut self.pauses, frame).await?;
        }
        Ok(())
    }

    async fn tell(
        events: &mpsc::Sender<ConnectionEvent>,
        pauses: &mut Pauses,
        frame: sse::Frame,
    ) -> std::result::Result<(), Ended> {
        let Some(event) = ConnectionEvent::of_frame(frame)? else {
            return Ok(());
        };
        if event.kind == EventKind::Connected {
            pauses.failures = 0;
        }
        events.send(event).await.map_err(|_| Ended::Unread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_never_shorter_than_the_first_grow_and_differ() {
        let first = Duration::from_secs(1);
        let fresh = Pauses {
            first,
            longest: WatchSource::LONGEST_PAUSE,
            failures: 0,
        };
        let mut lengths = std::collections::BTreeSet::new();
        let mut late = Duration::ZERO;
        for _ in 0..100 {
            let mut pauses = fresh;
            for n in 0..40 {
                let pause = pauses.next();
                assert!(
                    pause >= first && pause <= WatchSource::LONGEST_PAUSE,
                    "{pause:?}"
                );
                assert!(n > 0 || pause <= 2 * first, "{pause:?}");
                late = late.max(pause);
                lengths.insert(pause);
            }
        }
        assert!(lengths.len() > 100 && late > Duration::from_secs(20));
    }

    #[tokio::test]
    async fn a_url_is_required() {
        let second = Duration::from_secs(1);
        let source = WatchSource::at(" ", second, second).unwrap();
        let error = source.subscribe().await.err().unwrap();
        assert_eq!(error.to_string(), "watch url is required");
    }
}
