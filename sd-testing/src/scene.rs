//! The setting of a case: a service of its own, one client that writes and another that reads.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sd_core::port::{Attempt, Registration};
use sd_core::{
    Backend, Error, ErrorKind, Instance, InstanceId, Registrar, Registry, Result, ServiceName,
    Snapshot,
};
use tokio::time::timeout;

use super::case::{Failure, ensure};
use super::follower::{Follower, TOLD_WITHIN};
use crate::Fixture;

/// Long enough for a record to outlive a case without renewals.
const OUTLIVES_A_CASE: Duration = Duration::from_secs(5 * 60);
/// Requests at once of [`Scene::register_at_once`].
const IN_FLIGHT: usize = 32;

pub(super) struct Scene {
    pub(super) service: ServiceName,
    pub(super) reader: Arc<dyn Backend>,
    pub(super) writer: Arc<dyn Backend>,
    pub(super) registrar: Arc<dyn Registrar>,
    /// Records of this attempt need no renewal while a case runs.
    pub(super) lasting: Attempt,
}

impl Scene {
    pub(super) async fn open(fixture: &dyn Fixture) -> Result<Self, Failure> {
        let (reader, writer) = (fixture.backend().await?, fixture.backend().await?);
        let Some(registrar) = Arc::clone(&writer).registrar() else {
            return Err(Failure::Skipped("this backend cannot write".to_owned()));
        };
        let ttl = &registrar.limits().ttl;
        let lasting = Attempt::new(OUTLIVES_A_CASE.clamp(*ttl.start(), *ttl.end()));
        Ok(Self {
            service: fixture.service(),
            reader,
            writer,
            registrar,
            lasting,
        })
    }

    /// The reading client as users have it.
    pub(super) fn registry(&self) -> Registry {
        Registry::new(Arc::clone(&self.reader))
    }

    pub(super) fn instance(&self, id: &str) -> Result<Instance> {
        instance(&self.service, id)
    }

    pub(super) async fn register(&self, instance: &Instance) -> Result<Box<dyn Registration>> {
        self.registrar.register(instance, &self.lasting).await
    }

    /// Registers instances with these ids.
    pub(super) async fn register_all(&self, ids: &[&str]) -> Result<Vec<Instance>> {
        let mut instances = Vec::new();
        for id in ids {
            let instance = self.instance(id)?;
            self.register(&instance).await?;
            instances.push(instance);
        }
        Ok(instances)
    }

    /// Registers instances with several requests in flight.
    pub(super) async fn register_at_once(&self, instances: &[Instance]) -> Result<()> {
        let mut running = FuturesUnordered::new();
        for instance in instances {
            if running.len() >= IN_FLIGHT
                && let Some(registered) = running.next().await
            {
                registered?;
            }
            running.push(self.register(instance));
        }
        while let Some(registered) = running.next().await {
            registered?;
        }
        Ok(())
    }

    /// What the reading client lists.
    pub(super) async fn list(&self) -> Result<Snapshot> {
        self.reader.list(&self.service).await
    }

    /// Fails unless the reading client lists exactly these.
    pub(super) async fn ensure_lists(
        &self,
        when: &str,
        expected: &[Instance],
    ) -> Result<(), Failure> {
        let listed = self.list().await?;
        ensure(holds(&listed, expected), || {
            format!(
                "{when}: {expected:?} expected, {:?} listed",
                listed.instances()
            )
        })
    }

    /// Opens a feed at the reading client.
    pub(super) async fn follow(&self) -> Result<Follower> {
        let watcher = self.reader.watch(&self.service, None).await?;
        Ok(Follower::new(self.service.clone(), watcher, None))
    }

    /// Opens a feed after `known`, or a fresh one if that is refused as outdated, and waits for a set as wanted.
    pub(super) async fn resume_until(
        &self,
        known: &Snapshot,
        what: &str,
        wanted: impl Fn(&Snapshot) -> bool,
    ) -> Result<Snapshot, Failure> {
        let outdated = |error: &Error| error.kind() == ErrorKind::Outdated;
        let first = match self.reader.watch(&self.service, Some(known)).await {
            Ok(mut watcher) => match timeout(TOLD_WITHIN, watcher.next()).await {
                Ok(told) => told.map(|feed| (watcher, feed)),
                Err(_) => return Err(Failure::Broken("a feed's first call hangs".to_owned())),
            },
            Err(error) => Err(error),
        };
        let mut follower = match first {
            Ok((watcher, feed)) => {
                let mut follower = Follower::new(self.service.clone(), watcher, Some(known));
                follower.take(&feed)?;
                follower
            }
            Err(error) if outdated(&error) => self.follow().await?,
            Err(error) => return Err(error.into()),
        };
        follower.until(what, wanted).await
    }
}

pub(super) fn instance(service: &ServiceName, id: &str) -> Result<Instance> {
    Ok(Instance::new(service.as_str(), "10.0.0.7:50051")?.with_id(InstanceId::new(id)?))
}

/// Whether the set holds exactly these whole records.
pub(super) fn holds(set: &Snapshot, expected: &[Instance]) -> bool {
    let mut expected: Vec<&Instance> = expected.iter().collect();
    expected.sort_by(|a, b| a.id().cmp(b.id()));
    set.instances().iter().map(AsRef::as_ref).eq(expected)
}
