//! For tests: a source that can be turned on and off.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::clock::{Clock, TokioClock};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::config::SubscriptionConfig;
use crate::feed::subscription::Subscription;
use crate::model::instance::{Incarnation, Instance};
use crate::model::name::{InstanceId, ServiceName};
use crate::model::snapshot::{Revision, Snapshot};
use crate::model::state::State;
use crate::port::instancer::{Feed, Instancer, Watcher};

/// A source of one service. While it is down, it refuses new feeds and ends open ones.
#[derive(Debug)]
pub(crate) struct Switched {
    turns: watch::Sender<Turn>,
    feeds: watch::Sender<usize>,
}

#[derive(Clone, Debug)]
struct Turn {
    up: bool,
    revision: u64,
    instances: Vec<Arc<Instance>>,
}

impl Switched {
    pub(crate) fn up(instances: impl IntoIterator<Item = Instance>) -> Arc<Self> {
        Self::new(true, instances)
    }

    pub(crate) fn down() -> Arc<Self> {
        Self::new(false, [])
    }

    fn new(up: bool, instances: impl IntoIterator<Item = Instance>) -> Arc<Self> {
        Arc::new(Self {
            turns: watch::Sender::new(Turn {
                up,
                revision: 1,
                instances: instances.into_iter().map(Arc::new).collect(),
            }),
            feeds: watch::Sender::new(0),
        })
    }

    pub(crate) fn turn(&self, up: bool) {
        self.turns.send_modify(|turn| turn.up = up);
    }

    pub(crate) fn set(&self, instances: impl IntoIterator<Item = Instance>) {
        self.turns.send_modify(|turn| {
            turn.revision += 1;
            turn.instances = instances.into_iter().map(Arc::new).collect();
        });
    }

    /// How many feeds are open.
    pub(crate) fn feeds(&self) -> usize {
        *self.feeds.borrow()
    }

    /// Waits until no feed is open.
    pub(crate) async fn feeds_end(&self) {
        let mut feeds = self.feeds.subscribe();
        let ended = feeds.wait_for(|open| *open == 0);
        let limit = Duration::from_secs(1);
        tokio::time::timeout(limit, ended).await.unwrap().unwrap();
    }

    fn check(turn: &Turn) -> Result<()> {
        if turn.up {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, "test source").because("switched off"))
    }
}

impl Turn {
    fn snapshot(&self, service: &ServiceName) -> Snapshot {
        let revision = Revision::new("test", self.revision);
        Snapshot::new(
            service.clone(),
            revision,
            TokioClock.now(),
            self.instances.clone(),
        )
    }
}

#[async_trait]
impl Instancer for Switched {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        Self::check(&self.turns.borrow())?;
        Ok(vec![service()])
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        let turn = self.turns.borrow().clone();
        Self::check(&turn)?;
        Ok(turn.snapshot(service))
    }

    async fn watch(&self, service: &ServiceName, _: Option<&Snapshot>) -> Result<Box<dyn Watcher>> {
        let mut turns = self.turns.subscribe();
        Self::check(&turns.borrow())?;
        turns.mark_changed();
        self.feeds.send_modify(|open| *open += 1);
        Ok(Box::new(SwitchedFeed {
            service: service.clone(),
            turns,
            feeds: self.feeds.clone(),
        }))
    }
}

#[derive(Debug)]
struct SwitchedFeed {
    service: ServiceName,
    turns: watch::Receiver<Turn>,
    feeds: watch::Sender<usize>,
}

#[async_trait]
impl Watcher for SwitchedFeed {
    async fn next(&mut self) -> Result<Feed> {
        if self.turns.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let turn = self.turns.borrow_and_update().clone();
        Switched::check(&turn)?;
        Ok(Feed::Set(turn.snapshot(&self.service)))
    }

    fn silence_limit(&self) -> Duration {
        Duration::from_secs(24 * 3600)
    }
}

impl Drop for SwitchedFeed {
    fn drop(&mut self) {
        self.feeds.send_modify(|open| *open -= 1);
    }
}

pub(crate) fn service() -> ServiceName {
    ServiceName::new("s").unwrap()
}

/// An instance with this id; always the same run at the same address.
pub(crate) fn instance(id: &str) -> Instance {
    Instance::new("s", "h:1")
        .unwrap()
        .with_id(InstanceId::new(id).unwrap())
        .with_incarnation(Incarnation::from_u64(1))
}

pub(crate) fn subscribe(source: Arc<dyn Instancer>) -> Subscription {
    let config = SubscriptionConfig::default();
    Subscription::spawn(source, service(), config, Arc::new(TokioClock)).unwrap()
}

/// Ids and status: `"a b live"`.
pub(crate) fn seen(state: &State) -> String {
    let set = state.snapshot();
    let ids = set.instances().iter().map(|i| i.id().as_str());
    ids.chain([state.status().as_str()])
        .collect::<Vec<_>>()
        .join(" ")
}

/// Waits until the subscription shows `wanted`.
pub(crate) async fn until(subscription: &mut Subscription, wanted: &str) -> State {
    let waiting = async {
        let mut state = subscription.state_and_mark_seen();
        while seen(&state) != wanted {
            state = subscription.changed().await.unwrap();
        }
        state
    };
    let limit = Duration::from_secs(2 * 60);
    let told = tokio::time::timeout(limit, waiting).await.ok();
    told.unwrap_or_else(|| panic!("{:?} instead of {wanted:?}", seen(&subscription.state())))
}
