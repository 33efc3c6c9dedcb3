//! Exhibitors: programs beside the servers that tell which servers there are.

use std::collections::HashMap;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use sd_core::{Endpoint, Error, ErrorKind, Result};
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::client::ensemble::MOST_SERVERS;
#[cfg(feature = "exhibitor")]
use crate::client::exhibitor_http::get;
use crate::config::ZkConfig;
use crate::config::rules::{DEFAULT_EXHIBITOR_PORT, RULES};

const OP: &str = "zk: ask exhibitor";

/// Those that a configuration names.
#[derive(Debug)]
pub(crate) struct Exhibitors {
    servers: Vec<Endpoint>,
    /// How long one of them may take. Together they take half the time of a request: the rest is for the session.
    answers_within: Duration,
    interval: Duration,
}

impl Exhibitors {
    /// `None` if the [checked](ZkConfig::checked) configuration names none.
    pub(crate) fn new(config: &ZkConfig) -> Result<Option<Self>> {
        let servers = &config.exhibitors;
        let servers = servers.addresses_for("exhibitors", RULES, DEFAULT_EXHIBITOR_PORT)?;
        let Some(count) = u32::try_from(servers.len()).ok().filter(|count| *count > 0) else {
            return Ok(None);
        };
        Ok(Some(Self {
            servers,
            answers_within: config.request_timeout / 2 / count,
            interval: config.exhibitor_interval,
        }))
    }

    /// The servers that the first of them tells that can tell any. Cancel-safe.
    ///
    /// # Errors
    /// What is wrong with each of them.
    pub(crate) async fn ask(&self) -> Result<Vec<Endpoint>> {
        let mut told = Vec::new();
        for exhibitor in &self.servers {
            let exhibitor = exhibitor.to_string();
            let limit = self.answers_within;
            let answered = match timeout(limit, get(&exhibitor)).await {
                Ok(answered) => answered.and_then(|body| servers_in(&body)),
                Err(_) => Err(format!("no answer within {limit:?}")),
            };
            match answered {
                Ok(servers) => return Ok(servers),
                Err(why) => told.push(format!("{exhibitor}: {why}")),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, OP).because(format!(
            "no Exhibitor told the servers of ZooKeeper: {}",
            told.join("; ")
        )))
    }

    /// Tells the servers again and again. Never returns. Cancel-safe.
    pub(crate) async fn follow(&self, tell: impl Fn(Vec<Endpoint>)) {
        loop {
            sleep(self.interval).await;
            match self.ask().await {
                Ok(servers) => tell(servers),
                Err(error) => debug!(error = %error.report(), "the servers were not told"),
            }
        }
    }
}

/// A configuration with Exhibitors is refused.
#[cfg(not(feature = "exhibitor"))]
fn get(_: &str) -> std::future::Ready<Result<Vec<u8>, String>> {
    std::future::ready(Err("not compiled in".to_owned()))
}

/// Exhibitor's list of servers as JSON.
#[derive(Deserialize)]
struct Json {
    servers: Vec<String>,
    port: u16,
}

/// The servers that an answer tells, in either of Exhibitor's forms: `count=1&port=2181&server0=host`, which Curator reads, or
/// `{"servers":["host"],"port":2181}`. An error repeats nothing of the answer.
fn servers_in(body: &[u8]) -> Result<Vec<Endpoint>, String> {
    let (hosts, port) = if body.trim_ascii_start().starts_with(b"{") {
        let json: Json = serde_json::from_slice(body)
            .map_err(|_| "its answer is not Exhibitor's list of servers".to_owned())?;
        (json.servers, json.port)
    } else {
        hosts_and_port(body).ok_or("its answer is not Exhibitor's list of servers")?
    };
    if hosts.is_empty() {
        return Err("it knows no server".to_owned());
    }
    if hosts.len() > MOST_SERVERS {
        return Err(format!("it tells more than {MOST_SERVERS} servers"));
    }
    let servers = hosts.iter().map(|host| Endpoint::tcp(host, port));
    let servers: Result<_> = servers.collect();
    servers.map_err(|_| "it tells a server that cannot be dialled".to_owned())
}

fn hosts_and_port(body: &[u8]) -> Option<(Vec<String>, u16)> {
    let text = str::from_utf8(body).ok()?.trim();
    let fields = text.split('&').filter_map(|field| field.split_once('='));
    let fields: HashMap<&str, &str> = fields.collect();
    let port = fields.get("port")?.parse().ok()?;
    let count: usize = fields.get("count")?.parse().ok()?;
    let host = |number| {
        let host = fields.get(format!("server{number}").as_str())?;
        let host = percent_decode_str(host).decode_utf8().ok()?;
        Some(host.into_owned())
    };
    // As many as there may be, and one that is too many.
    let hosts: Option<_> = (0..count.min(MOST_SERVERS + 1)).map(host).collect();
    Some((hosts?, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(body: &str) -> Result<Vec<String>, String> {
        let servers = servers_in(body.as_bytes())?;
        Ok(servers.iter().map(Endpoint::to_string).collect())
    }

    #[test]
    fn both_forms_of_the_list_are_read() {
        for body in [
            "count=3&port=2181&server0=a&server1=10.0.0.2&server2=c.example",
            "server2=c.example&server0=a&port=2181&server1=10.0.0.2&count=3&other=x\n",
            r#"{"servers":["a","10.0.0.2","c.example"],"port":2181}"#,
        ] {
            let expected = ["a:2181", "10.0.0.2:2181", "c.example:2181"];
            assert_eq!(told(body).unwrap(), expected, "{body}");
        }
        assert_eq!(
            told("count=1&port=1&server0=fd00%3A%3A1").unwrap(),
            ["[fd00::1]:1"]
        );
    }

    #[test]
    fn what_is_no_list_is_an_error_that_repeats_nothing() {
        for (body, why) in [
            ("", "not Exhibitor's"),
            ("<html>hunter2</html>", "not Exhibitor's"),
            ("{\"servers\":\"hunter2\"}", "not Exhibitor's"),
            ("count=2&port=2181&server0=hunter2", "not Exhibitor's"),
            ("count=1&port=hunter2&server0=a", "not Exhibitor's"),
            ("count=0&port=2181", "knows no server"),
            (r#"{"servers":[],"port":2181}"#, "knows no server"),
            ("count=1&port=0&server0=a", "cannot be dialled"),
            ("count=1&port=1&server0=hunter2%0A", "cannot be dialled"),
            ("count=1&port=1&server0=u:hunter2@h", "cannot be dialled"),
        ] {
            let error = told(body).unwrap_err();
            assert!(error.contains(why), "{body}: {error}");
            assert!(!error.contains("hunter"), "{error}");
        }
        let many: Vec<_> = (0..100).map(|n| format!("&server{n}=h{n}")).collect();
        let error = told(&format!("count=100&port=1{}", many.concat())).unwrap_err();
        assert!(error.contains("more than 64"), "{error}");
        let error = told("count=18446744073709551615&port=1").unwrap_err();
        assert!(error.contains("not Exhibitor's"), "{error}");
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = servers_in(&body);
        }
    }
}
