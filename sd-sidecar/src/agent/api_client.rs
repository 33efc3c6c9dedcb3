//! What is asked of the agent.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use super::error::{AgentError, ApiFailure, Result, printable};
use super::http::HttpClient;
use super::parts::Client;
use crate::wire::dialect::Dialect;
use crate::wire::{ServiceNode, format_duration};

/// Asks an agent over HTTP.
#[derive(Clone, Debug)]
pub struct ApiClient {
    http: HttpClient,
    dialect: Dialect,
}

impl ApiClient {
    /// Sends bodies that agents of every generation understand.
    pub fn new(http: HttpClient) -> Self {
        Self {
            http,
            dialect: Dialect::default(),
        }
    }

    /// Sends the bodies of one generation.
    #[must_use]
    pub fn with_dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// Success is a status from 200 to 299 without `"success": false`.
    async fn post(&self, path: &str, body: Vec<u8>) -> Result<()> {
        let (status, answer) = self.http.post(path, body).await?;
        let answer: Answer = serde_json::from_slice(&answer).unwrap_or_default();
        if status.is_success() && answer.success != Some(false) {
            return Ok(());
        }
        let message = answer.message.or(answer.error).unwrap_or_default();
        Err(AgentError::Api(ApiFailure {
            method: "POST",
            path: path.to_owned(),
            status_code: status.as_u16(),
            status: status.canonical_reason().unwrap_or_default().to_owned(),
            code: printable(answer.code.unwrap_or_default()),
            message: printable(message),
        }))
    }
}

#[async_trait]
impl Client for ApiClient {
    async fn register(&self, node: &ServiceNode) -> Result<()> {
        self.post("/register", node.register_body(self.dialect))
            .await
    }

    async fn drain(&self, node: &ServiceNode, grace: Option<Duration>) -> Result<()> {
        let grace = grace.map(format_duration).unwrap_or_default();
        self.post("/drain", node.drain_body(self.dialect, &grace))
            .await
    }

    /// What is not there has been deregistered.
    async fn deregister(&self, node: &ServiceNode) -> Result<()> {
        match self
            .post("/deregister", node.deregister_body(self.dialect))
            .await
        {
            Err(error) if error.is_not_found() => Ok(()),
            done => done,
        }
    }
}

/// What an answer says, of any generation. One that is no JSON says nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    success: Option<bool>,
    code: Option<String>,
    message: Option<String>,
    error: Option<String>,
}
