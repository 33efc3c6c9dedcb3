//! The lock of the naive candidate at Redis, as it is found in many programs: a key that is set if it is not there, and expires. It takes any
//! answer to a renewal for one, and stays with the first primary that it was told of.

use async_trait::async_trait;
use server_programs::Redis;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::Result;
use crate::child::Brief;
use crate::child::naive::{ANSWER_WITHIN, Lock, POLL_EVERY, Won};
use crate::operator::{REDIS_NAIVE_LOCK, REDIS_NAIVE_TOKEN};
use crate::servers::REDIS_PRIMARY;

struct RedisLock {
    url: String,
    ttl: String,
}

async fn ask(url: &str, words: &[&str]) -> Result<String> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let url = url.to_owned();
    let asked = spawn_blocking(move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Redis::ask_at(&url, &words)
    });
    Ok(timeout(ANSWER_WITHIN, asked).await???)
}

/// One endpoint is that of a server, several are those of its Sentinels.
async fn primary(brief: &Brief) -> Result<String> {
    let first = brief.endpoints.first().ok_or("no server is named")?;
    let url = format!("redis://{first}");
    if brief.endpoints.len() == 1 {
        return Ok(url);
    }
    let asked = spawn_blocking(move || Redis::primary_of(&url, REDIS_PRIMARY));
    Ok(format!(
        "redis://{}",
        timeout(ANSWER_WITHIN, asked).await???
    ))
}

pub(super) async fn campaign(brief: &Brief) -> Result<Won> {
    let (url, ttl) = (primary(brief).await?, brief.ttl.as_millis().to_string());
    let set = ["SET", REDIS_NAIVE_LOCK, &brief.name, "NX", "PX", &ttl];
    while ask(&url, &set).await? != "OK" {
        sleep(POLL_EVERY).await;
    }
    let token = ask(&url, &["INCR", REDIS_NAIVE_TOKEN]).await?;
    Ok(Won {
        id: brief.name.clone(),
        token: token.parse()?,
        lock: Box::new(RedisLock { url, ttl }),
    })
}

#[async_trait]
impl Lock for RedisLock {
    async fn renew(&mut self) -> Result<()> {
        let renew = ["PEXPIRE", REDIS_NAIVE_LOCK, &self.ttl];
        ask(&self.url, &renew).await.map(drop)
    }

    async fn give_up(self: Box<Self>) -> Result<()> {
        ask(&self.url, &["DEL", REDIS_NAIVE_LOCK]).await.map(drop)
    }
}
