//! The feed of who leads an election: read the candidates with a watch, then what the first of them shows, and again when the watch tells.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::select_all;
use sd_backend::ToldLeader;
use sd_core::clock::Clock;
use sd_core::port::{Leader, LeaderFeed, LeaderWatcher};
use sd_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep_until};
use zookeeper_client as zk;

use crate::client::Client;
use crate::client::error::{for_readers, translate};
use crate::client::session::Session;
use crate::client::watch::fired;
use crate::election::candidate_node::token;
use crate::election::keys::ElectionKeys;
use crate::election::token_domain;

const OP: &str = "zk: observe election";
/// How often a quiet feed asks whether the server is there.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

type Event = Pin<Box<dyn Future<Output = Result<zk::WatchedEvent>> + Send>>;

/// One election, followed.
pub(crate) struct ZkLeaderWatcher {
    client: Arc<Client>,
    clock: Arc<dyn Clock>,
    keys: ElectionKeys,
    session: Session,
    states: zk::StateWatcher,
    /// `None` until there was an election of ours.
    token_domain: Option<Arc<str>>,
    /// What may change next: the candidates, or what the leader shows. Empty if it has to be read.
    watches: Vec<Event>,
    next_sign: Instant,
    told: ToldLeader,
}

impl ZkLeaderWatcher {
    pub(crate) async fn open(
        client: Arc<Client>,
        clock: Arc<dyn Clock>,
        keys: ElectionKeys,
    ) -> Result<Self> {
        client.signal.check_open(OP)?;
        let session = client.session(OP).await?;
        let as_of = clock.now();
        let mut watcher = Self {
            states: session.states(),
            client,
            clock,
            keys,
            session,
            token_domain: None,
            watches: Vec::new(),
            next_sign: Instant::now() + ALIVE_EVERY,
            told: ToldLeader::untold(None, as_of),
        };
        let client = watcher.session.client(OP).await;
        let client = client.map_err(for_readers)?;
        // What follows is read from the member that this session is at, which may be late.
        let synced = watcher.session.call(OP, client.sync("/")).await;
        synced.map_err(for_readers)?;
        let leader = watcher.read().await.map_err(for_readers)?;
        watcher.told = ToldLeader::untold(leader, as_of);
        Ok(watcher)
    }

    /// Reads who leads, and watches what that depends on.
    async fn read(&mut self) -> Result<Option<Leader>> {
        let client = self.session.client(OP).await?;
        self.watches.clear();
        let mut armed = Vec::new();
        let leader = loop {
            armed.clear();
            let listed = client.list_and_watch_children(self.keys.candidates());
            let nodes = match self.session.answer(OP, listed).await? {
                Ok((nodes, watcher)) => {
                    armed.push(event(watcher));
                    nodes
                }
                Err(zk::Error::NoNode) => {
                    let looked = client.check_and_watch_stat(self.keys.candidates());
                    let (stat, watcher) = self.session.call(OP, looked).await?;
                    if stat.is_some() {
                        continue;
                    }
                    armed.push(event(watcher));
                    break None;
                }
                Err(error) => return Err(translate(OP, error)),
            };
            let Some(node) = self.keys.first(&nodes) else {
                break None;
            };
            let (path, value_path) = (self.keys.candidate(node), self.keys.value(node));
            let own = self.session.answer(OP, client.get_and_watch_data(&path));
            let looked = client.check_and_watch_stat(&value_path);
            let proclaimed = self.session.call(OP, looked);
            let value = self.session.answer(OP, client.get_data(&value_path));
            let (own, (_, watcher), value) = tokio::try_join!(own, proclaimed, value)?;
            let (own, stat, changed) = match own {
                Ok(own) => own,
                // It left meanwhile.
                Err(zk::Error::NoNode) => continue,
                Err(error) => return Err(translate(OP, error)),
            };
            // Curator and we leave it as it is, but others may not.
            armed.push(event(changed));
            armed.push(event(watcher));
            let value = match value {
                Ok((value, _)) => value,
                Err(zk::Error::NoNode) => self.keys.value_in(own),
                Err(error) => return Err(translate(OP, error)),
            };
            if self.token_domain.is_none() {
                let history = self.keys.history();
                self.token_domain = token_domain::find(&self.session, OP, &history).await?;
            }
            // Another program that leads in its own way may have been the first.
            let domain = self.token_domain.as_deref().unwrap_or_default();
            break Some(Leader::new(
                self.keys.id_of(node),
                value,
                token(domain, stat.czxid),
            ));
        };
        self.watches = armed;
        Ok(leader)
    }

    /// Waits until something may have changed, or the server has to be asked whether it is there.
    async fn wait(&mut self) -> Result<Woken> {
        let watches = &mut self.watches;
        let woken = async {
            if watches.is_empty() {
                return;
            }
            // If it is the end of the session, the read that follows says so.
            let _ = select_all(watches.iter_mut()).await;
        };
        tokio::select! {
            biased;
            lost = self.session.ended(OP) => Err(lost),
            state = self.states.changed() => match state {
                zk::SessionState::Disconnected => Err(Error::new(ErrorKind::Unavailable, OP)
                    .because("the connection to the server was lost")),
                _ => Ok(Woken::Changed),
            },
            () = woken => Ok(Woken::Changed),
            () = sleep_until(self.next_sign) => Ok(Woken::Quiet),
        }
    }

    async fn ask(&mut self) -> Result<LeaderFeed> {
        if let Some(first) = self.told.first() {
            return Ok(first);
        }
        let woken = self.wait().await?;
        if woken == Woken::Changed {
            // Until it has been read, also by the next call.
            self.watches.clear();
        }
        let as_of = self.clock.now();
        let leader = match woken {
            Woken::Changed => self.read().await?,
            Woken::Quiet => {
                let client = self.session.client(OP).await?;
                let look = client.check_stat(self.keys.candidates());
                self.session.call(OP, look).await?;
                self.told.last().cloned()
            }
        };
        self.next_sign = Instant::now() + ALIVE_EVERY;
        Ok(self.told.news(leader, as_of))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    Changed,
    Quiet,
}

fn event(watcher: zk::OneshotWatcher) -> Event {
    Box::pin(fired(OP, watcher))
}

#[async_trait]
impl LeaderWatcher for ZkLeaderWatcher {
    async fn next(&mut self) -> Result<LeaderFeed> {
        let client = Arc::clone(&self.client);
        let told = client.signal.unless_closed(OP, self.ask()).await;
        told.map_err(for_readers)
    }

    fn silence_limit(&self) -> Duration {
        ALIVE_EVERY + 2 * self.client.config().request_timeout
    }
}

impl std::fmt::Debug for ZkLeaderWatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ZkLeaderWatcher")
            .field("keys", &self.keys)
            .field("session", &self.session)
            .field("told", &self.told)
            .finish_non_exhaustive()
    }
}
