//! The lock of the naive candidate at Consul: that of a key, held by a session.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::child::Brief;
use crate::child::naive::{ANSWER_WITHIN, ELECTION, Lock, Won};
use crate::http::Http;
use crate::operator::{ConsulKv, ConsulSession};

const TRY_EVERY: Duration = Duration::from_millis(500);

struct ConsulLock {
    http: Http,
    session: String,
}

pub(super) async fn campaign(brief: &Brief) -> Result<Won> {
    let endpoint = brief.endpoints.first().ok_or("no agent is known")?;
    let server = endpoint.trim_start_matches("http://").parse()?;
    let within = ANSWER_WITHIN;
    let http = Http { server, within };
    let session = json!({
        "Name": format!("{}{}", ConsulSession::names_of(ELECTION), brief.name),
        "TTL": format!("{}s", brief.ttl.as_secs()),
        // Some programs set it so, in order to be quick.
        "LockDelay": "0s",
        "NodeChecks": [],
    })
    .to_string();
    let made = http.ask("PUT", "/v1/session/create", &session).await?;
    let session = made.json::<ConsulSession>()?.id;
    let mut lock = Box::new(ConsulLock { http, session });
    let key = ConsulKv::of(ELECTION);
    let acquire = format!("/v1/kv/{key}?acquire={}", lock.session);
    let mut renewed = Instant::now();
    loop {
        let acquired = http.ask("PUT", &acquire, &brief.name).await?;
        if acquired.json()? {
            let key = ConsulKv::read(&http, &key).await?;
            let token = key.ok_or("the key is gone")?.modify_index;
            let id = lock.session.clone();
            return Ok(Won { lock, id, token });
        }
        sleep(TRY_EVERY).await;
        if renewed.elapsed() >= brief.ttl / 3 {
            lock.renew().await?;
            renewed = Instant::now();
        }
    }
}

#[async_trait]
impl Lock for ConsulLock {
    async fn renew(&mut self) -> Result<()> {
        let target = format!("/v1/session/renew/{}", self.session);
        let renewed = self.http.ask("PUT", &target, "").await?;
        renewed.json::<Vec<ConsulSession>>().map(drop)
    }

    async fn give_up(self: Box<Self>) -> Result<()> {
        let target = format!("/v1/session/destroy/{}", self.session);
        let destroyed = self.http.ask("PUT", &target, "").await?;
        destroyed.json::<bool>().map(drop)
    }
}
