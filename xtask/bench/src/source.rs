//! A source that is told its sets, and sets to tell it.

use std::sync::Arc;
use std::time::Duration;

use sd_core::clock::Moment;
use sd_core::port::{Feed, async_trait};
use sd_core::{
    Endpoint, Error, ErrorKind, Instance, InstanceId, Instancer, Revision, ServiceName, Snapshot,
    Watcher,
};
use tokio::sync::watch;

use crate::Result;

/// Longer than the pause after which a subscription no longer takes a change for part of a burst.
pub(crate) const PAUSE: Duration = Duration::from_millis(15);

/// Instances as a registry would list them: with version, zone, a tag and some metadata, sorted by id.
pub(crate) fn instances(service: &ServiceName, count: usize) -> Result<Vec<Arc<Instance>>> {
    (0..count)
        .map(|nth| {
            let host = format!("10.{}.{}.{}", nth >> 16, (nth >> 8) & 255, nth & 255);
            let instance = Instance::new(service, Endpoint::tcp(&host, 50051)?)?
                .with_id(InstanceId::new(format!("instance-{nth:06}"))?)
                .with_version("1.4.2")
                .with_zone("eu-1a")
                .with_tag("blue")
                .with_metadata("owner", "payments")
                .with_metadata("commit", "0123456789abcdef");
            Ok(Arc::new(instance))
        })
        .collect()
}

/// The set of these instances at one revision.
pub(crate) fn snapshot(
    service: &ServiceName,
    revision: u64,
    instances: Vec<Arc<Instance>>,
) -> Snapshot {
    let revision = Revision::new("bench", revision);
    Snapshot::new(service.clone(), revision, Moment::ZERO, instances)
}

/// `snapshot` with another weight for one instance; the others are shared.
pub(crate) fn with_one_changed(snapshot: &Snapshot, nth: usize, weight: u16) -> Snapshot {
    let mut instances = snapshot.instances().to_vec();
    let changed = Instance::clone(&instances[nth]).with_weight(weight);
    instances[nth] = Arc::new(changed);
    snapshot.clone().with_instances(instances)
}

/// The same set with new copies of all instances, as after a source was read again.
pub(crate) fn reread(snapshot: &Snapshot) -> Snapshot {
    let copied = |instance: &Arc<Instance>| Arc::new(Instance::clone(instance));
    let instances = snapshot.instances().iter().map(copied).collect();
    snapshot.clone().with_instances(instances)
}

/// Tells every watcher the set that it was told last.
#[derive(Debug)]
pub(crate) struct Source {
    sets: watch::Sender<Snapshot>,
}

impl Source {
    pub(crate) fn new(first: Snapshot) -> Self {
        Self {
            sets: watch::Sender::new(first),
        }
    }

    pub(crate) fn set(&self, snapshot: Snapshot) {
        self.sets.send_replace(snapshot);
    }
}

#[async_trait]
impl Instancer for Source {
    async fn services(&self) -> sd_core::Result<Vec<ServiceName>> {
        Ok(vec![self.sets.borrow().service().clone()])
    }

    async fn list(&self, _: &ServiceName) -> sd_core::Result<Snapshot> {
        Ok(self.sets.borrow().clone())
    }

    async fn watch(
        &self,
        _: &ServiceName,
        _: Option<&Snapshot>,
    ) -> sd_core::Result<Box<dyn Watcher>> {
        let mut sets = self.sets.subscribe();
        sets.mark_changed();
        Ok(Box::new(Sets(sets)))
    }
}

#[derive(Debug)]
struct Sets(watch::Receiver<Snapshot>);

#[async_trait]
impl Watcher for Sets {
    async fn next(&mut self) -> sd_core::Result<Feed> {
        let ended = |_| Error::new(ErrorKind::Closed, "source");
        self.0.changed().await.map_err(ended)?;
        Ok(Feed::Set(self.0.borrow_and_update().clone()))
    }

    fn silence_limit(&self) -> Duration {
        Duration::from_hours(1)
    }
}
