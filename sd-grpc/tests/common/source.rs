//! Sources of instances for tests.

use std::sync::Arc;
use std::time::Duration;

use sd_core::clock::{BootClock, Clock, Moment};
use sd_core::port::{Feed, async_trait};
use sd_core::{
    Instance, Instancer, Result, Revision, ServiceName, Snapshot, Subscription, SubscriptionConfig,
    Watcher,
};
use sd_grpc::ChannelBuilder;
use tokio::sync::watch;

/// A service whose set is what the test says, at once.
#[derive(Clone, Debug)]
pub struct Set(watch::Sender<(u64, Vec<Instance>)>);

impl Set {
    pub fn of(instances: impl IntoIterator<Item = Instance>) -> Self {
        Self(watch::Sender::new((1, instances.into_iter().collect())))
    }

    /// Replaces the set.
    pub fn set(&self, instances: impl IntoIterator<Item = Instance>) {
        let instances = instances.into_iter().collect();
        self.0.send_modify(|(revision, set)| {
            *revision += 1;
            *set = instances;
        });
    }

    /// Begins a channel to the service.
    pub fn channel(&self) -> ChannelBuilder {
        over(Arc::new(self.clone()))
    }
}

/// A source that never answers.
#[derive(Debug)]
pub struct Silent;

impl Silent {
    pub fn channel() -> ChannelBuilder {
        over(Arc::new(Self))
    }
}

/// A source that panics when it is opened.
#[derive(Debug)]
pub struct Panicking;

impl Panicking {
    pub fn channel() -> ChannelBuilder {
        over(Arc::new(Self))
    }
}

#[async_trait]
impl Instancer for Panicking {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        panic!("a bug in the source")
    }

    async fn list(&self, _service: &ServiceName) -> Result<Snapshot> {
        panic!("a bug in the source")
    }

    async fn watch(
        &self,
        _service: &ServiceName,
        _known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        panic!("a bug in the source")
    }
}

fn over(instancer: Arc<dyn Instancer>) -> ChannelBuilder {
    let mut config = SubscriptionConfig::default();
    config.mass_loss_hold = None;
    let service = ServiceName::new("echo").unwrap();
    let subscription = Subscription::spawn(instancer, service, config, Arc::new(BootClock));
    ChannelBuilder::over(subscription.unwrap())
}

fn snapshot(set: &(u64, Vec<Instance>)) -> Snapshot {
    let now: Moment = BootClock.now();
    Snapshot::new(
        ServiceName::new("echo").unwrap(),
        Revision::new("test", set.0),
        now,
        set.1.iter().cloned().map(Arc::new).collect(),
    )
}

#[async_trait]
impl Instancer for Set {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        Ok(vec![ServiceName::new("echo")?])
    }

    async fn list(&self, _service: &ServiceName) -> Result<Snapshot> {
        Ok(snapshot(&self.0.borrow()))
    }

    async fn watch(
        &self,
        _service: &ServiceName,
        _known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        let mut sets = self.0.subscribe();
        sets.mark_changed();
        Ok(Box::new(Sets(sets)))
    }
}

#[derive(Debug)]
struct Sets(watch::Receiver<(u64, Vec<Instance>)>);

#[async_trait]
impl Watcher for Sets {
    async fn next(&mut self) -> Result<Feed> {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        Ok(Feed::Set(snapshot(&self.0.borrow_and_update())))
    }

    fn silence_limit(&self) -> Duration {
        Duration::from_secs(3600)
    }
}

#[async_trait]
impl Instancer for Silent {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        std::future::pending().await
    }

    async fn list(&self, _service: &ServiceName) -> Result<Snapshot> {
        std::future::pending().await
    }

    async fn watch(
        &self,
        _service: &ServiceName,
        _known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        std::future::pending().await
    }
}
