//! An operator beside the library: plain requests to an agent.

use std::time::Duration;

use reqwest::{Client, Method};
use sd_core::{RecordId, ServiceName};
use serde_json::Value;

use super::{LONG, eventually};

/// Asks one agent.
#[derive(Clone)]
pub(crate) struct Operator {
    url: String,
    token: String,
    http: Client,
}

impl Operator {
    pub(crate) fn at(url: &str) -> Self {
        Self::with_token(url, "")
    }

    pub(crate) fn with_token(url: &str, token: &str) -> Self {
        Self {
            url: url.to_owned(),
            token: token.to_owned(),
            http: Client::builder().no_proxy().build().unwrap(),
        }
    }

    /// Status and body of an answer; a status of 0 if there is none.
    pub(crate) async fn ask(&self, method: Method, target: &str, body: &str) -> (u16, Value) {
        let request = self
            .http
            .request(method, format!("{}{target}", self.url))
            .header("x-consul-token", &self.token)
            .timeout(Duration::from_secs(5))
            .body(body.to_owned());
        let Ok(answer) = request.send().await else {
            return (0, Value::Null);
        };
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap_or_default();
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    /// Status and body of an answer to a read.
    pub(crate) async fn read(&self, target: &str) -> (u16, Value) {
        self.ask(Method::GET, target, "").await
    }

    pub(crate) async fn get(&self, target: &str) -> Value {
        let (status, body) = self.ask(Method::GET, target, "").await;
        assert_eq!(status, 200, "GET {target}: {body}");
        body
    }

    /// The index that an answer carries.
    pub(crate) async fn index(&self, target: &str) -> String {
        let request = self.http.get(format!("{}{target}", self.url));
        let answer = request.send().await.unwrap();
        let index = answer.headers()["x-consul-index"].to_str().unwrap();
        index.to_owned()
    }

    pub(crate) async fn put(&self, target: &str, body: &str) -> Value {
        let (status, answer) = self.ask(Method::PUT, target, body).await;
        assert_eq!(status, 200, "PUT {target} {body}: {answer}");
        answer
    }

    /// The entries of a service, well or not.
    pub(crate) async fn entries(&self, service: &ServiceName) -> Vec<Value> {
        let found = self.get(&format!("/v1/health/service/{service}")).await;
        found.as_array().unwrap().clone()
    }

    /// The entries that everybody may call.
    pub(crate) async fn passing(&self, service: &ServiceName) -> Vec<Value> {
        let found = self
            .get(&format!("/v1/health/service/{service}?passing"))
            .await;
        found.as_array().unwrap().clone()
    }

    /// Puts a service as other programs do, and waits until the catalog has it.
    pub(crate) async fn register(&self, service: &ServiceName, id: &str, rest: &str) {
        let id = plain_id(service, id);
        let body = format!(r#"{{"Name":"{service}","ID":"{id}"{rest}}}"#);
        self.put("/v1/agent/service/register", &body).await;
        let has_it = |entry: &Value| entry["Service"]["ID"] == id.as_str();
        self.until(service, |entries| entries.iter().any(has_it))
            .await;
    }

    /// Removes what was put so.
    pub(crate) async fn deregister(&self, service: &ServiceName, id: &str) {
        self.remove(service, &plain_id(service, id)).await;
    }

    /// Removes the service with this id, and waits until the catalog does not have it.
    pub(crate) async fn remove(&self, service: &ServiceName, id: &str) {
        self.put(&format!("/v1/agent/service/deregister/{id}"), "")
            .await;
        let has_it = |entry: &Value| entry["Service"]["ID"] == id;
        self.until(service, |entries| !entries.iter().any(has_it))
            .await;
    }

    /// Waits until the entries of a service are so.
    pub(crate) async fn until(&self, service: &ServiceName, wanted: impl Fn(&[Value]) -> bool) {
        eventually("in the catalog", LONG, || async {
            wanted(&self.entries(service).await)
        })
        .await;
    }

    /// The ids of the sessions whose names begin so.
    pub(crate) async fn sessions(&self, name: &str) -> Vec<String> {
        let all = self.get("/v1/session/list?consistent").await;
        let all = all.as_array().unwrap().iter();
        let ours = all.filter(|found| found["Name"].as_str().unwrap().starts_with(name));
        ours.map(|found| found["ID"].as_str().unwrap().to_owned())
            .collect()
    }

    pub(crate) async fn destroy_session(&self, id: &str) {
        self.put(&format!("/v1/session/destroy/{id}"), "").await;
    }

    /// Says that the check of a record fails, and waits until the catalog says so, too.
    pub(crate) async fn fail(&self, record: &RecordId) {
        let id = service_id(record);
        self.put(&format!("/v1/agent/check/fail/service:{id}"), "")
            .await;
        let check = format!("service:{id}");
        self.until(&record.service, |entries| {
            let all = entries
                .iter()
                .flat_map(|entry| entry["Checks"].as_array().unwrap());
            let mut ours = all.filter(|found| found["CheckID"] == check.as_str());
            ours.all(|found| found["Status"] == "critical")
        })
        .await;
    }
}

/// An id that other tests do not use: an agent has one space for all.
pub(crate) fn plain_id(service: &ServiceName, id: &str) -> String {
    format!("{id}-of-{service}")
}

/// The id of a record at the agent, if the instance's is made of what needs no encoding.
pub(crate) fn service_id(record: &RecordId) -> String {
    format!("{}:{}", record.service, record.id)
}
