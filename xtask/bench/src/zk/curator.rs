//! Curator's `LeaderLatch` in two processes of its own: see `xtask/peers/curator/Peer.java` for what is said on its pipes.

use std::time::Duration;

use sd_testing::Peer;
use serde_json::Value;
use tokio::time::sleep;

use super::SESSION;
use super::server::Server;
use crate::election::within;
use crate::{Error, Result};

/// Where `cargo xtask bench` says that it has built the program.
const VARIABLE: &str = "SD_TEST_ZK_CURATOR";
/// Where the election is held.
const PATH: &str = "/bench/curator";
const MODULE: &str = include_str!("../../../peers/curator/ivy.xml");

/// Two processes that take turns in leading.
pub(super) struct Curator {
    leader: Process,
    next: Process,
    turns: usize,
}

struct Process {
    peer: Peer,
    /// The latch that takes part.
    latch: String,
}

impl Curator {
    /// Returns when one of them leads.
    pub(super) async fn start(server: &Server) -> Result<Self> {
        let mut curator = Self {
            leader: Process::start(server)?,
            next: Process::start(server)?,
            turns: 0,
        };
        curator.leader.join(curator.turns).await?;
        curator.leader.told("leads").await?;
        Ok(curator)
    }

    /// Lets one latch wait behind the other one for so long, and then the other one close. Returns how long it took from there until the
    /// one that waited was told that it leads, by their own clocks, which are one.
    pub(super) async fn hand_over(&mut self, waits: Duration) -> Result<Duration> {
        self.turns += 1;
        self.next.join(self.turns).await?;
        while self.leader.participants().await? < 2 {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(waits).await;
        let leave = format!("leave {}", self.leader.latch);
        self.leader.peer.say(&leave).await?;
        let left = self.leader.told("left").await?;
        let leads = self.next.told("leads").await?;
        std::mem::swap(&mut self.leader, &mut self.next);
        let nanos = number(&leads, "at")? - number(&left, "began")?;
        Ok(Duration::from_nanos(nanos.try_into()?))
    }
}

impl Process {
    fn start(server: &Server) -> Result<Self> {
        let session = SESSION.as_millis().to_string();
        let server = server.address().to_string();
        Ok(Self {
            peer: Peer::start(VARIABLE, &[&server, &session])?,
            latch: String::new(),
        })
    }

    async fn join(&mut self, turn: usize) -> Result<()> {
        self.latch = format!("bench-{turn}");
        let join = format!("join {PATH} {}", self.latch);
        self.peer.say(&join).await?;
        self.told("joined").await.map(drop)
    }

    /// How many take part.
    async fn participants(&mut self) -> Result<i64> {
        self.peer.say(&format!("leader {PATH}")).await?;
        number(&self.told("leader").await?, "participants")
    }

    /// The next thing of this kind that it says.
    async fn told(&mut self, event: &str) -> Result<Value> {
        let told = async {
            loop {
                let line = self.peer.line().await?;
                let told: Value = serde_json::from_str(&line)?;
                if told["event"] == "failed" {
                    return Err::<_, Error>(line.into());
                }
                if told["event"] == event {
                    return Ok(told);
                }
            }
        };
        within(event, told).await?
    }
}

fn number(told: &Value, field: &str) -> Result<i64> {
    let number = told[field].as_i64();
    Ok(number.ok_or_else(|| format!("Curator tells no {field}: {told}"))?)
}

/// The version of Curator that the module asks for.
pub(super) fn version() -> &'static str {
    let after = MODULE.split_once("name=\"curator-recipes\" rev=\"");
    let version = after.and_then(|(_, rest)| rest.split('"').next());
    version.unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_names_the_version() {
        assert!(version().starts_with("5."), "{}", version());
    }
}
