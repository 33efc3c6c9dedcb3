//! Requests to Consul's HTTP interface and their answers. Knows nothing of discovery.

pub(crate) mod answer;
mod at;
pub(crate) mod blocking_queries;
pub(crate) mod connection;
pub(crate) mod credentials;
pub(crate) mod error;
pub(crate) mod filter;
pub(crate) mod go_duration;
pub(crate) mod kv;
pub(crate) mod sessions;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use sd_backend::{CloseSignal, Secret, is_out_of_files, is_unreachable};
use sd_core::{Error, ErrorKind, Result};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use crate::client::answer::Answer;
use crate::client::at::at;
use crate::client::blocking_queries::{BlockingQueries, Waiter};
use crate::client::connection::{Connection, Connector};
use crate::client::error::unanswered;
use crate::client::go_duration::go_duration;
use crate::config::ConsulConfig;

/// How many requests of one client may be under way at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Concurrency {
    /// Blocking queries. Beyond this they take turns.
    pub(crate) blocking_queries: usize,
    /// All others. Beyond this they queue.
    pub(crate) requests: usize,
}

/// One Consul, reached through one agent at a time. Does nothing until it is used.
pub(crate) struct Client {
    connector: Connector,
    queries: BlockingQueries,
    asking: Semaphore,
    /// Held while a large answer is decoded.
    pub(crate) decoding: Arc<Semaphore>,
    pub(crate) signal: CloseSignal,
}

/// Whether a request may be sent a second time when its outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    Harmless,
    Never,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    op: &'static str,
    method: Method,
    path: &'a [&'a str],
    query: Vec<(&'static str, Cow<'a, str>)>,
    body: Option<Vec<u8>>,
    repeat: Repeat,
    wait: Option<Duration>,
}

impl<'a> Request<'a> {
    fn new(op: &'static str, method: Method, path: &'a [&'a str]) -> Self {
        Self {
            op,
            method,
            path,
            query: Vec::new(),
            body: None,
            repeat: Repeat::Harmless,
            wait: None,
        }
    }

    /// Adds `key=value`.
    pub(crate) fn with(mut self, key: &'static str, value: impl Into<Cow<'a, str>>) -> Self {
        self.query.push((key, value.into()));
        self
    }

    /// Sends this as JSON.
    ///
    /// # Errors
    /// `InvalidInput` if it cannot be written so.
    pub(crate) fn json(mut self, body: &impl Serialize) -> Result<Self> {
        let json = serde_json::to_vec(body)
            .map_err(|error| Error::new(ErrorKind::InvalidInput, self.op).with_source(error))?;
        self.body = Some(json);
        Ok(self)
    }

    /// It would do something else if it were carried out twice.
    pub(crate) fn once(mut self) -> Self {
        self.repeat = Repeat::Never;
        self
    }

    /// Waits for a change since `index`.
    fn blocking(mut self, index: u64, wait: Duration) -> Self {
        self.wait = Some(wait);
        self.with("index", index.to_string())
            .with("wait", go_duration(wait))
    }
}

impl Client {
    /// A client for a [checked](ConsulConfig::checked) configuration.
    pub(crate) fn new(config: ConsulConfig, concurrency: Concurrency) -> Self {
        Self::on(CloseSignal::new(), config, concurrency)
    }

    /// A client of the same Consul with connections of its own. The two are closed together.
    pub(crate) fn sibling(&self, concurrency: Concurrency) -> Self {
        Self::on(self.signal.clone(), self.config().clone(), concurrency)
    }

    fn on(signal: CloseSignal, config: ConsulConfig, concurrency: Concurrency) -> Self {
        Self {
            connector: Connector::new(config, &signal),
            queries: BlockingQueries::new(concurrency.blocking_queries),
            asking: Semaphore::new(concurrency.requests),
            decoding: Arc::new(Semaphore::new(1)),
            signal,
        }
    }

    pub(crate) fn config(&self) -> &ConsulConfig {
        self.connector.config()
    }

    /// Whether requests show a token, now.
    pub(crate) fn has_token(&self) -> bool {
        self.config().has_token()
    }

    /// The token that requests show at present. Cancel-safe.
    pub(crate) async fn token(&self, op: &'static str) -> Result<Option<Secret>> {
        let connected = self.connector.connection(op);
        let connection = self.signal.unless_closed(op, connected).await?;
        Ok(connection.token().cloned())
    }

    /// How long a blocking query may take before the agent must be taken for dead.
    pub(crate) fn longest_query(&self) -> Duration {
        let config = self.config();
        config.request_timeout + slack(config.wait)
    }

    /// Asks the agent itself.
    pub(crate) fn local<'a>(
        &'a self,
        op: &'static str,
        method: Method,
        path: &'a [&'a str],
    ) -> Request<'a> {
        let config = self.config();
        let mut request = Request::new(op, method, path);
        for (key, value) in [("ns", &config.namespace), ("partition", &config.partition)] {
            if let Some(value) = value {
                request = request.with(key, value);
            }
        }
        request
    }

    /// Asks the servers of the configured datacenter.
    pub(crate) fn remote<'a>(
        &'a self,
        op: &'static str,
        method: Method,
        path: &'a [&'a str],
    ) -> Request<'a> {
        let request = self.local(op, method, path);
        match &self.config().dc {
            Some(dc) => request.with("dc", dc),
            None => request,
        }
    }

    /// Takes part in the blocking queries for as long as it is held.
    pub(crate) fn waiter(&self) -> Waiter {
        self.queries.waiter()
    }

    /// Waits for a change since `index`; for the configured time, for `most`, or less while others wait for their turn.
    /// Cancel-safe.
    pub(crate) async fn wait(
        &self,
        waiter: &Waiter,
        request: &Request<'_>,
        index: u64,
        most: Duration,
    ) -> Result<Answer> {
        let (op, long) = (request.op, self.config().wait.min(most));
        let waiting = waiter.wait(long, |wait| {
            let request = request.clone().blocking(index, wait);
            async move { self.attempts(&request, self.limit(&request)).await }
        });
        self.signal.unless_closed(op, waiting).await
    }

    /// Sends a request and reads its answer, whatever it says. Cancel-safe as far as Consul is.
    pub(crate) async fn send(&self, request: Request<'_>) -> Result<Answer> {
        let op = request.op;
        let asking = async {
            // Fails only if the semaphore is closed, which does not happen.
            let _permit = self.asking.acquire().await;
            self.attempts(&request, self.limit(&request)).await
        };
        self.signal.unless_closed(op, asking).await
    }

    /// Sends a request and expects success.
    pub(crate) async fn call(&self, request: Request<'_>) -> Result<Answer> {
        let op = request.op;
        self.send(request).await?.success(op)
    }

    fn limit(&self, request: &Request<'_>) -> Duration {
        self.config().request_timeout + request.wait.map_or(Duration::ZERO, slack)
    }

    async fn attempts(&self, request: &Request<'_>, limit: Duration) -> Result<Answer> {
        let (mut another_agent, mut another_token) = (true, true);
        loop {
            let deadline = Instant::now() + limit;
            let connection = self.connector.connection(request.op).await?;
            match self.attempt(&connection, request, limit, deadline).await {
                Ok(answer) => {
                    let denied = answer.denies() || answer.hides(connection.token().is_some());
                    // A request that was denied was not carried out.
                    if denied
                        && std::mem::take(&mut another_token)
                        && self.renew_token(request.op, &connection).await
                    {
                        debug!("consul token read again");
                        continue;
                    }
                    return Ok(answer);
                }
                Err(error) => {
                    // Without descriptors, the open connections are all there is.
                    let unreachable = is_unreachable(&error) && !is_out_of_files(&error);
                    if unreachable {
                        debug!(error = %error.report(), "consul did not answer");
                        self.connector.retire(&connection);
                    }
                    // The same agent would only take as long again.
                    let hopeless =
                        error.kind() == ErrorKind::Timeout && !self.connector.has_choice();
                    // The caller of a blocking query sends it again.
                    another_agent &= unreachable
                        && !hopeless
                        && request.repeat == Repeat::Harmless
                        && request.wait.is_none();
                    if !std::mem::take(&mut another_agent) {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn renew_token(&self, op: &'static str, connection: &Connection) -> bool {
        let limit = self.config().request_timeout;
        let renewed = timeout(limit, self.connector.renew_token(op, connection)).await;
        renewed.unwrap_or(false)
    }

    async fn attempt(
        &self,
        connection: &Connection,
        request: &Request<'_>,
        limit: Duration,
        deadline: Instant,
    ) -> Result<Answer> {
        let op = request.op;
        let query = request.query.iter();
        let query = query.map(|(key, value)| (*key, value.as_ref()));
        let mut sending = connection.request(request.method.clone(), request.path, query);
        if let Some(body) = &request.body {
            sending = sending.body(body.clone());
        }
        // How long a blocking query may be silent is known; it is dropped for many good reasons.
        let suspicion = request
            .wait
            .is_none()
            .then(|| self.connector.unanswered(connection));
        let answering = async {
            let response = sending
                .send()
                .await
                .map_err(|error| at(error.url().cloned().as_ref(), unanswered(op, error)))?;
            Answer::read(op, response).await
        };
        let mut answer = timeout_at(deadline, answering)
            .await
            .unwrap_or_else(|_| Err(no_answer(op, limit)));
        if let Some(suspicion) = suspicion {
            suspicion.answered();
        }
        if let Ok(answer) = &mut answer {
            answer.edit_refusal(|text| connection.redact(text));
        }
        answer
    }
}

/// How much longer than the request timeout a blocking query may take. Consul adds up to a sixteenth to what it is asked to wait.
fn slack(wait: Duration) -> Duration {
    wait + wait / 16
}

fn no_answer(op: &'static str, limit: Duration) -> Error {
    Error::new(ErrorKind::Timeout, op).because(format!("Consul did not answer within {limit:?}"))
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.connector).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::connection::hanging_file;

    #[tokio::test]
    async fn files_that_hang_are_an_error_after_the_request_timeout_and_closing_does_not_wait_for_them()
     {
        let folder = tempfile::tempdir().unwrap();
        let config = ConsulConfig::default()
            .with_token_file(hanging_file(&folder))
            .with_request_timeout(Duration::from_millis(100));
        let concurrency = Concurrency {
            blocking_queries: 1,
            requests: 1,
        };
        let client = Client::new(config.checked().unwrap(), concurrency);
        let request = || client.local("test", Method::GET, &["status", "leader"]);
        for error in [
            client.token("test").await.unwrap_err(),
            client.send(request()).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Timeout);
            let report = error.report().to_string();
            assert!(report.contains("token_file"), "{report}");
        }
        client.signal.close();
        assert_eq!(
            client.token("test").await.unwrap_err().kind(),
            ErrorKind::Closed
        );
    }
}
