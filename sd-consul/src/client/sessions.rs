//! Sessions: what holds a lock, and ends by itself unless it is renewed.

use std::time::Duration;

use reqwest::Method;
use sd_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::client::go_duration::go_duration;

/// Consul grants none that are shorter, unless its `session_ttl_min` says otherwise.
pub(crate) const SHORTEST_TTL: Duration = Duration::from_secs(10);
/// Nor any that are longer.
pub(crate) const LONGEST_TTL: Duration = Duration::from_secs(24 * 3600);

/// A session as it is made.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NewSession<'a> {
    name: &'a str,
    #[serde(rename = "TTL")]
    ttl: String,
    lock_delay: String,
    behavior: &'static str,
    /// Without these two, the gossip of nodes about each other could end it at any time.
    node_checks: [&'static str; 0],
    checks: [&'static str; 0],
}

/// A session as it is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Session {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    #[serde(rename = "ID")]
    id: String,
}

impl Client {
    /// Makes a session that ends `ttl` after its last renewal or later, and whose locks then are free after the configured delay.
    pub(crate) async fn create_session(
        &self,
        op: &'static str,
        name: &str,
        ttl: Duration,
    ) -> Result<String> {
        let session = NewSession {
            name,
            ttl: go_duration(ttl),
            lock_delay: go_duration(self.config().lock_delay),
            behavior: "release",
            node_checks: [],
            checks: [],
        };
        let path = ["session", "create"];
        let request = self.remote(op, Method::PUT, &path).json(&session)?.once();
        let created: Created = self.call(request).await?.json(op)?;
        Ok(created.id)
    }

    /// Restarts the time-to-live of a session. `LeaseLost` if it is gone.
    pub(crate) async fn renew_session(&self, op: &'static str, id: &str) -> Result<()> {
        let path = ["session", "renew", id];
        match self.call(self.remote(op, Method::PUT, &path)).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(ended(op)),
            renewed => renewed.map(drop),
        }
    }

    /// Ends a session, and with it the locks that it holds. Fine if it is gone.
    pub(crate) async fn destroy_session(&self, op: &'static str, id: &str) -> Result<()> {
        let path = ["session", "destroy", id];
        self.call(self.remote(op, Method::PUT, &path))
            .await
            .map(drop)
    }

    /// Whether a session is there, after all that was confirmed before.
    pub(crate) async fn session_exists(&self, op: &'static str, id: &str) -> Result<bool> {
        let path = ["session", "info", id];
        Ok(!self.read_sessions(op, &path).await?.is_empty())
    }

    /// All sessions of the datacenter that we may see.
    pub(crate) async fn list_sessions(&self, op: &'static str) -> Result<Vec<Session>> {
        self.read_sessions(op, &["session", "list"]).await
    }

    async fn read_sessions(&self, op: &'static str, path: &[&str]) -> Result<Vec<Session>> {
        let request = self.remote(op, Method::GET, path).with("consistent", "");
        let answer = self.call(request).await?;
        let found: Option<Vec<Session>> = answer.json(op)?;
        let found = found.unwrap_or_default();
        if found.is_empty() && answer.hides(self.has_token()) {
            return Err(Error::new(ErrorKind::Denied, op).because(
                "Consul hid sessions: the token needs session:read for the nodes of the candidates",
            ));
        }
        Ok(found)
    }
}

pub(crate) fn ended(op: &'static str) -> Error {
    Error::new(ErrorKind::LeaseLost, op).because("the session has ended")
}
