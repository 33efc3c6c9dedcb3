//! Requests to a local agent.

use http::Method;
use hyper::body::Bytes;
use sd_core::brief;
use sd_sidecar::tls::ClientTls;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::arguments::AtAgent;
use crate::commands::http_api::{Api, Place, Unanswered, exit_of, token};
use crate::exit::Exit;
use crate::failure::Failure;

/// One agent, and how it is asked.
pub(super) struct Agent<'a> {
    at: &'a AtAgent,
    api: Api,
}

impl<'a> Agent<'a> {
    pub(super) fn new(at: &'a AtAgent) -> Result<Self, Failure> {
        let misused = |line: &str| Failure::new(line).with(Exit::Misused);
        let place = Place::of(&at.agent).ok_or_else(|| {
            misused("expected the agent as http://host:port, https://host:port, host:port or unix:/path; try: sdctl agent --help")
        })?;
        let tls = ClientTls::from_parts(
            at.ca.clone(),
            at.cert.clone(),
            at.key.clone(),
            at.server_name.clone(),
        );
        match place {
            Place::Tcp(_) if tls.is_set() => {
                return Err(misused(
                    "--ca, --cert, --key and --server-name are of TLS, which the agent's address does not ask for; try: --agent https://host:port",
                ));
            }
            Place::Tls { .. } => tls.check(at.timeout).map_err(|error| {
                misused(&format!("{}; try: sdctl agent --help", error.report()))
            })?,
            Place::Tcp(_) | Place::Unix(_) => {}
        }
        Ok(Self {
            at,
            api: Api {
                place,
                tls,
                token: token(at.token_file.as_deref(), "SDCTL_AGENT_TOKEN")?,
                within: at.timeout,
            },
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
        let answer = self.api.ask(method, path, None, body).await;
        let answer = answer.map_err(|Unanswered { why, exit }| {
            let tip = match (exit, &self.api.place) {
                (Exit::Unreachable, Place::Unix(_)) => "; try: look whether it runs",
                (Exit::Unreachable, _) => {
                    "; try: --agent unix:/run/sd-agent.sock, or look whether it runs"
                }
                _ => "",
            };
            self.failure(&format!("{why}{tip}")).with(exit)
        })?;
        let said: Value = serde_json::from_slice(&answer.body)
            .map_err(|_| self.failure("answers something else than an agent"))?;
        if answer.status.is_success() {
            return Ok(said);
        }
        let why = said["message"]
            .as_str()
            .map_or_else(|| answer.status.to_string(), brief);
        Err(self
            .failure(&format!("refuses: {why}"))
            .with(exit_of(answer.status)))
    }
}
