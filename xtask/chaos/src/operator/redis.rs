//! What an operator does at Redis.

use std::net::SocketAddr;

use async_trait::async_trait;
use server_programs::Redis;
use tokio::task::spawn_blocking;

use crate::Result;
use crate::history::Election;
use crate::operator::{Entry, Operator};

/// How the keys of the elections of a run begin.
pub(crate) const PREFIX: &str = "chaos";
/// The key that the naive candidate takes, and where its tokens are counted.
pub(crate) const NAIVE_LOCK: &str = "chaos-naive";
pub(crate) const NAIVE_TOKEN: &str = "chaos-naive-token";

/// The first candidate whose lease has not ended, with its token.
const FIRST: &str = "
    local clock = redis.call('TIME')
    local now = clock[1] * 1000000 + clock[2]
    local all = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
    for at = 1, #all, 2 do
        local ends = redis.call('ZSCORE', KEYS[2], all[at])
        if ends and tonumber(ends) >= now then
            return all[at] .. ' ' .. all[at + 1]
        end
    end";
/// How many candidates have leases that have not ended.
const COUNT: &str = "
    local clock = redis.call('TIME')
    local now = clock[1] * 1000000 + clock[2]
    return redis.call('ZCOUNT', KEYS[1], string.format('%.0f', now), '+inf')";

/// One that asks the server that is the primary now.
pub(crate) struct RedisOperator {
    url: String,
}

impl RedisOperator {
    pub(crate) fn new(primary: SocketAddr) -> Self {
        Self {
            url: format!("redis://{primary}"),
        }
    }

    async fn ask(&self, words: &[&str]) -> Result<String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let url = self.url.clone();
        let asked = spawn_blocking(move || {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            Redis::ask_at(&url, &words)
        });
        Ok(asked.await??)
    }
}

fn key(election: Election, part: &str) -> String {
    format!("{PREFIX}:{{{election}}}:{part}")
}

#[async_trait]
impl Operator for RedisOperator {
    async fn leader(&mut self, election: Election) -> Result<Option<Entry>> {
        if election == Election::Naive {
            let holder = self.ask(&["GET", NAIVE_LOCK]).await?;
            let token = self.ask(&["GET", NAIVE_TOKEN]).await?;
            let is_held = !holder.is_empty() && !token.is_empty();
            return Ok(is_held.then_some(Entry {
                key: NAIVE_LOCK.to_owned(),
                lease: String::new(),
                token: token.parse().unwrap_or_default(),
            }));
        }
        let [order, leases] = ["order", "leases"].map(|part| key(election, part));
        let first = self.ask(&["EVAL", FIRST, "2", &order, &leases]).await?;
        let Some((id, token)) = first.split_once(' ') else {
            return Ok(None);
        };
        Ok(Some(Entry {
            key: order,
            lease: id.to_owned(),
            token: token.parse()?,
        }))
    }

    async fn count(&mut self, election: Election) -> Result<usize> {
        let leases = key(election, "leases");
        Ok(self.ask(&["EVAL", COUNT, "1", &leases]).await?.parse()?)
    }

    async fn end_lease(&mut self, entry: &Entry) -> Result<bool> {
        if entry.key == NAIVE_LOCK {
            return self.delete(entry).await;
        }
        let leases = entry.key.replace(":order", ":leases");
        let ended = ["ZADD", &leases, "XX", "CH", "1", &entry.lease];
        Ok(self.ask(&ended).await? == "1")
    }

    async fn delete(&mut self, entry: &Entry) -> Result<bool> {
        let gone = match entry.key.as_str() {
            NAIVE_LOCK => self.ask(&["DEL", NAIVE_LOCK]).await?,
            order => self.ask(&["ZREM", order, &entry.lease]).await?,
        };
        Ok(gone == "1")
    }

    async fn version(&mut self) -> Result<String> {
        let url = self.url.clone();
        let said = spawn_blocking(move || Redis::serving_at(&url)).await??;
        let said = said.replace("valkey", "Valkey");
        Ok(said.replace("redis", "Redis"))
    }
}
