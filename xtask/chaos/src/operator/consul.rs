//! What an operator does at Consul.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use crate::Result;
use crate::history::Election;
use crate::http::Http;
use crate::operator::{Entry, Operator};

/// Where the elections of a run are kept.
pub(crate) const PREFIX: &str = "chaos";

const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A key, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ConsulKv {
    pub(crate) modify_index: u64,
    /// Who has the lock.
    #[serde(default)]
    pub(crate) session: String,
}

/// A session, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ConsulSession {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Itself {
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    version: String,
}

/// Asks one agent.
#[derive(Debug)]
pub(crate) struct ConsulOperator(Http);

impl ConsulOperator {
    pub(crate) fn new(server: SocketAddr) -> Self {
        let within = ANSWER_WITHIN;
        Self(Http { server, within })
    }

    async fn lives(&self, session: &str) -> Result<bool> {
        let target = format!("/v1/session/info/{session}?consistent");
        let found: Vec<ConsulSession> = self.0.ask("GET", &target, "").await?.json()?;
        Ok(found.iter().any(|found| found.id == session))
    }
}

impl ConsulKv {
    /// The key whose lock is the lead.
    pub(crate) fn of(election: Election) -> String {
        format!("{PREFIX}/{election}/.leader")
    }

    /// As all servers agree that it is now.
    pub(crate) async fn read(http: &Http, key: &str) -> Result<Option<Self>> {
        let target = format!("/v1/kv/{key}?consistent");
        let answer = http.ask("GET", &target, "").await?;
        if answer.is_not_found() {
            return Ok(None);
        }
        Ok(answer.json::<Vec<Self>>()?.pop())
    }
}

impl ConsulSession {
    /// How the names of the sessions of an election's candidates begin.
    pub(crate) fn names_of(election: Election) -> String {
        format!("{PREFIX}/{election}/.entries/")
    }
}

#[async_trait]
impl Operator for ConsulOperator {
    async fn leader(&mut self, election: Election) -> Result<Option<Entry>> {
        let key = ConsulKv::of(election);
        let found = ConsulKv::read(&self.0, &key).await?;
        let held = found.filter(|found| !found.session.is_empty());
        Ok(held.map(|held| Entry {
            key,
            lease: held.session,
            // No process of a run writes a new value in a term, which would move it.
            token: held.modify_index,
        }))
    }

    async fn count(&mut self, election: Election) -> Result<usize> {
        let answer = self.0.ask("GET", "/v1/session/list?consistent", "").await?;
        let names = ConsulSession::names_of(election);
        let all: Vec<ConsulSession> = answer.json()?;
        let of = all
            .iter()
            .filter(|session| session.name.starts_with(&names));
        Ok(of.count())
    }

    async fn end_lease(&mut self, entry: &Entry) -> Result<bool> {
        // Destroying says `true` whether there was a session or not.
        if !self.lives(&entry.lease).await? {
            return Ok(false);
        }
        let target = format!("/v1/session/destroy/{}", entry.lease);
        let destroyed: bool = self.0.ask("PUT", &target, "").await?.json()?;
        if !destroyed || self.lives(&entry.lease).await? {
            return Err(format!(
                "session {} still exists after it was destroyed",
                entry.lease
            )
            .into());
        }
        Ok(true)
    }

    async fn delete(&mut self, entry: &Entry) -> Result<bool> {
        let target = format!("/v1/kv/{}?cas={}", entry.key, entry.token);
        self.0.ask("DELETE", &target, "").await?.json()
    }

    async fn version(&mut self) -> Result<String> {
        let itself: Itself = self.0.ask("GET", "/v1/agent/self", "").await?.json()?;
        Ok(itself.config.version)
    }
}
