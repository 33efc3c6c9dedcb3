//! The servers of the ensemble, as far as they are known: those that the configuration names, and the newest ones that were told since.
//!
//! All sessions of one registry share what is known.

use std::sync::Mutex;

use futures_util::future::join_all;
use sd_core::sync::lock;
use sd_core::{Endpoint, Result};
use tokio::time::timeout;
use tracing::info;
use zookeeper_client as zk;

use crate::client::exhibitors::Exhibitors;
use crate::client::members;
use crate::client::probe::{addresses, reach};
use crate::client::session::Session;
use crate::config::ZkConfig;
use crate::config::rules::{DEFAULT_PORT, RULES};

/// More servers than any ensemble has.
pub(crate) const MOST_SERVERS: usize = 64;
/// After which part of its time-out a session that has no connection is given up for one at a server that it does not know.
const PATIENCE: u32 = 3;

/// The servers of one ensemble.
#[derive(Debug)]
pub(crate) struct Ensemble {
    named: Vec<Endpoint>,
    /// Empty until there was word of them.
    told: Mutex<Vec<Endpoint>>,
    exhibitors: Option<Exhibitors>,
    follows_members: bool,
}

impl Ensemble {
    /// Of a [checked](ZkConfig::checked) configuration.
    pub(crate) fn new(config: &ZkConfig) -> Result<Self> {
        Ok(Self {
            named: config.endpoints.addresses(RULES, DEFAULT_PORT)?,
            told: Mutex::default(),
            exhibitors: Exhibitors::new(config)?,
            follows_members: config.follow_members,
        })
    }

    /// The servers to try first.
    ///
    /// # Errors
    /// None are known, since no Exhibitor has told any.
    pub(crate) async fn newest(&self) -> Result<Vec<Endpoint>> {
        if lock(&self.told).is_empty() {
            let asked = self.refresh().await;
            if self.known().is_empty() {
                asked?;
            }
        }
        Ok(self.known())
    }

    /// The servers to try when none of the first ones made a session.
    pub(crate) async fn all(&self) -> Vec<Endpoint> {
        // What was told before is better than nothing.
        let _ = self.refresh().await;
        let mut all = self.known();
        let further = self.named.iter().filter(|server| !all.contains(server));
        all.extend(further.cloned().collect::<Vec<_>>());
        all
    }

    /// Those that were told last, or else those that are named.
    pub(crate) fn known(&self) -> Vec<Endpoint> {
        let told = lock(&self.told).clone();
        if told.is_empty() {
            return self.named.clone();
        }
        told
    }

    /// Takes what the ensemble or an Exhibitor tells. To be told none is no reason to forget.
    pub(crate) fn tell(&self, servers: impl IntoIterator<Item = Endpoint>) {
        let mut servers: Vec<_> = servers.into_iter().collect();
        servers.sort();
        servers.dedup();
        servers.truncate(MOST_SERVERS);
        if servers.is_empty() {
            return;
        }
        let mut told = lock(&self.told);
        if *told != servers {
            info!(?servers, "the servers of zookeeper were told");
            *told = servers;
        }
    }

    /// Asks the Exhibitors, if there are any.
    async fn refresh(&self) -> Result<()> {
        if let Some(exhibitors) = &self.exhibitors {
            self.tell(exhibitors.ask().await?);
        }
        Ok(())
    }

    /// Learns of other servers while there is this session. Never returns. Cancel-safe.
    pub(crate) async fn follow(&self, session: &Session) {
        if let Some(exhibitors) = &self.exhibitors {
            exhibitors.follow(|servers| self.tell(servers)).await;
        } else if self.follows_members {
            members::follow(session, |servers| self.tell(servers)).await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    /// Returns once a session whose client knows these servers is out of reach, while another one of the newest servers can be reached. The
    /// client crate takes no other servers for a session that was made. Cancel-safe.
    pub(crate) async fn has_moved(&self, session: &Session, known: &[Endpoint]) {
        if self.exhibitors.is_none() && !self.follows_members {
            return std::future::pending().await;
        }
        let patience = session.timeout() / PATIENCE;
        let mut states = session.states();
        let mut state = states.state();
        loop {
            if state != zk::SessionState::Disconnected {
                state = states.changed().await;
                continue;
            }
            match timeout(patience, states.changed()).await {
                Ok(changed) => state = changed,
                Err(_) if self.reaches_beyond(known).await => {
                    if states.peek_state() == zk::SessionState::Disconnected {
                        return;
                    }
                }
                Err(_) => {}
            }
        }
    }

    /// Whether a server that is not among these accepts connections. It may have one name in our configuration, and another one in its own.
    async fn reaches_beyond(&self, known: &[Endpoint]) -> bool {
        let _ = self.refresh().await;
        let servers = self.known().into_iter();
        let others = servers.filter(|server| !known.contains(server));
        let reached = others.map(async |server| reach(&server).await);
        let reached = join_all(reached).await;
        let known = known.iter().map(async |server| addresses(server).await);
        let known = join_all(known).await.concat();
        let mut reached = reached.into_iter().flatten();
        reached.any(|address| !known.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ensemble(config: ZkConfig) -> Ensemble {
        Ensemble::new(&config.checked().unwrap()).unwrap()
    }

    fn servers(names: &[&str]) -> Vec<Endpoint> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn what_was_told_is_tried_first_and_what_is_named_after_that() {
        let ensemble = ensemble(ZkConfig::new(["a", "b:1"]));
        let named = servers(&["a:2181", "b:1"]);
        assert_eq!(ensemble.newest().await.unwrap(), named);
        assert_eq!(ensemble.all().await, named);
        ensemble.tell(servers(&["d:4", "b:1", "c:3", "c:3"]));
        let told = servers(&["b:1", "c:3", "d:4"]);
        assert_eq!(ensemble.newest().await.unwrap(), told);
        let all = servers(&["b:1", "c:3", "d:4", "a:2181"]);
        assert_eq!(ensemble.all().await, all);
    }

    #[test]
    fn to_be_told_nothing_is_no_reason_to_forget_and_too_much_is_cut() {
        let ensemble = ensemble(ZkConfig::new(["a"]));
        ensemble.tell(servers(&["b:1"]));
        ensemble.tell([]);
        assert_eq!(ensemble.known(), servers(&["b:1"]));
        let many = (0..1000).map(|n| Endpoint::tcp(&format!("h{n}"), 1).unwrap());
        ensemble.tell(many);
        assert_eq!(ensemble.known().len(), MOST_SERVERS);
    }
}
