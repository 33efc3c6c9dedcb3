//! What a program does that has only an HTTP client: plain requests to an agent, and reading what it needs of the answers.

use std::time::Duration;

use reqwest::{Client, Method, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// Longer than any query waits.
const LIMIT: Duration = Duration::from_secs(40);

/// An HTTP client for one agent.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    address: String,
    http: Client,
}

/// An instance of a service, as it is listed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    service: ListedService,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedService {
    #[serde(rename = "ID")]
    id: String,
}

impl Listed {
    pub(super) fn id(&self) -> &str {
        &self.service.id
    }
}

impl Agent {
    pub(super) fn at(address: &str) -> Result<Self> {
        let http = Client::builder()
            .no_proxy()
            .http1_only()
            .tcp_nodelay(true)
            .timeout(LIMIT)
            .build()?;
        Ok(Self {
            address: address.to_owned(),
            http,
        })
    }

    async fn ask(&self, method: Method, target: &str, body: String) -> Result<Response> {
        let url = format!("{}{target}", self.address);
        let answer = self.http.request(method, url).body(body).send().await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        Err(format!("{target}: {status}: {}", answer.text().await?).into())
    }

    pub(super) async fn put(&self, target: &str, body: impl ToString) -> Result<String> {
        let answer = self.ask(Method::PUT, target, body.to_string()).await?;
        Ok(answer.text().await?)
    }

    /// The answer, and the index to wait from.
    pub(super) async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<(T, u64)> {
        let answer = self.ask(Method::GET, target, String::new()).await?;
        let index = answer.headers().get("x-consul-index");
        let index = index.and_then(|index| index.to_str().ok()?.parse().ok());
        let body = answer.bytes().await?;
        Ok((serde_json::from_slice(&body)?, index.unwrap_or(0)))
    }

    /// How large an answer is, without decoding it.
    pub(super) async fn size(&self, target: &str) -> Result<usize> {
        let answer = self.ask(Method::GET, target, String::new()).await?;
        Ok(answer.bytes().await?.len())
    }

    pub(super) async fn version(&self) -> Result<String> {
        let (itself, _): (serde_json::Value, _) = self.get("/v1/agent/self").await?;
        let version = itself["Config"]["Version"].as_str();
        Ok(version
            .ok_or("the agent does not tell its version")?
            .to_owned())
    }

    /// Asks again, each time waiting for a change since `index`, until what is listed is as wanted. Returns the last index.
    pub(super) async fn until_listed(
        &self,
        service: &str,
        mut index: u64,
        wanted: impl Fn(&[Listed]) -> bool,
    ) -> Result<u64> {
        loop {
            let target = format!("/v1/health/service/{service}?passing&index={index}&wait=30s");
            let (listed, told): (Vec<Listed>, _) = self.get(&target).await?;
            if wanted(&listed) {
                return Ok(told);
            }
            if told == index {
                return Err::<_, Error>(format!("{service} did not change in time").into());
            }
            index = told;
        }
    }

    /// Registers an instance with a check that passes.
    pub(super) async fn register(&self, service: &str, id: &str) -> Result<()> {
        let body = serde_json::json!({"Name": service, "ID": id, "Address": "127.0.0.1", "Port": 50051,
            "Check": {"TTL": "10s", "Status": "passing", "DeregisterCriticalServiceAfter": "1m"}});
        self.put("/v1/agent/service/register", body).await.map(drop)
    }

    pub(super) async fn deregister(&self, id: &str) -> Result<()> {
        let target = format!("/v1/agent/service/deregister/{id}");
        self.put(&target, "").await.map(drop)
    }
}
