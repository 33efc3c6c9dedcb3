//! A process that registers with an agent and asks it, by a plain HTTP client.

use std::net::SocketAddr;
use std::path::Path;

use reqwest::{Client, ClientBuilder, Method, StatusCode};
use serde_json::{Value, json};

use super::PATIENCE;
use crate::Result;
use crate::election::within;

/// One caller, who keeps its connections.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    base: String,
    http: Client,
}

impl Caller {
    /// One without a name, as all that come over TCP without a token.
    pub(super) fn by_port(address: SocketAddr) -> Result<Self> {
        Self::with(format!("http://{address}"), Client::builder())
    }

    /// One that goes by the name of its user.
    pub(super) fn by_socket(path: &Path) -> Result<Self> {
        Self::with(
            "http://localhost".to_owned(),
            Client::builder().unix_socket(path),
        )
    }

    fn with(base: String, http: ClientBuilder) -> Result<Self> {
        let http = http.no_proxy().http1_only().tcp_nodelay(true);
        Ok(Self {
            base,
            http: http.timeout(PATIENCE).build()?,
        })
    }

    async fn ask(&self, method: Method, path: &str, body: String) -> Result<(StatusCode, String)> {
        let url = format!("{}{path}", self.base);
        let answer = self.http.request(method, url).body(body).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if status.is_success() {
            Ok((status, text))
        } else {
            Err(format!("{path}: {status}: {text}").into())
        }
    }

    pub(super) async fn get(&self, path: &str) -> Result<String> {
        let (_, text) = self.ask(Method::GET, path, String::new()).await?;
        Ok(text)
    }

    /// Registers what is declared so, and returns once the registry has confirmed it.
    pub(super) async fn register(&self, declaration: &Value) -> Result<()> {
        let confirmed = async {
            loop {
                let body = declaration.to_string();
                let (status, _) = self.ask(Method::POST, "/v1/registrations", body).await?;
                // It holds, but the registry has not answered in time: the same again waits on.
                if status != StatusCode::ACCEPTED {
                    return Ok(());
                }
            }
        };
        within("the registry confirms a registration", confirmed).await?
    }

    pub(super) async fn set_ready(&self, service: &str, id: &str, ready: bool) -> Result<()> {
        let path = format!("/v1/registrations/{service}/{id}/ready");
        let body = json!({ "ready": ready }).to_string();
        self.ask(Method::PUT, &path, body).await.map(drop)
    }

    pub(super) async fn deregister(&self, service: &str, id: &str) -> Result<()> {
        let path = format!("/v1/registrations/{service}/{id}");
        let answer = self.ask(Method::DELETE, &path, String::new());
        answer.await.map(drop)
    }
}
