//! The setting of a case: a service of its own, one client that writes and another that reads.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sd_core::port::{Attempt, Feed, Registration};
use sd_core::{
    Backend, Error, ErrorKind, Instance, InstanceId, Registrar, Registry, Result, ServiceName,
    Snapshot, Watcher,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::case::{Failure, ensure};
use super::follower::{Follower, TOLD_WITHIN};
use super::sight::Sight;
use crate::{Ability, Fixture};

/// Long enough for a record to outlive a case without renewals.
const OUTLIVES_A_CASE: Duration = Duration::from_secs(5 * 60);
/// Requests at once of [`Scene::register_at_once`].
const IN_FLIGHT: usize = 32;
/// From a read that was too early to the next one.
const READ_AGAIN: Duration = Duration::from_millis(20);

pub(super) struct Scene {
    pub(super) service: ServiceName,
    pub(super) reader: Arc<dyn Backend>,
    pub(super) writer: Arc<dyn Backend>,
    pub(super) registrar: Arc<dyn Registrar>,
    /// Records of this attempt need no renewal while a case runs.
    pub(super) lasting: Attempt,
    pub(super) sight: Sight,
    /// How late a read may see a write.
    pub(super) late: Duration,
    reads_on_demand: bool,
}

impl Scene {
    pub(super) async fn open(fixture: &dyn Fixture) -> Result<Self, Failure> {
        let (reader, writer) = (fixture.backend().await?, fixture.backend().await?);
        let Some(registrar) = Arc::clone(&writer).registrar() else {
            return Err(Failure::Broken(
                "the fixture's backend cannot write: give it a registrar".to_owned(),
            ));
        };
        let ttl = &registrar.limits().ttl;
        let lasting = Attempt::new(OUTLIVES_A_CASE.clamp(*ttl.start(), *ttl.end()));
        Ok(Self {
            service: fixture.service(),
            reader,
            writer,
            registrar,
            lasting,
            sight: Sight::of(fixture),
            late: fixture.visible_within(),
            reads_on_demand: fixture.has(Ability::ReadOnDemand),
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

    /// What the reading client reads of the service now.
    pub(super) async fn list(&self) -> Result<Snapshot> {
        self.list_of(&self.service).await
    }

    /// What the reading client reads of a service now.
    pub(super) async fn list_of(&self, service: &ServiceName) -> Result<Snapshot> {
        if self.reads_on_demand {
            return self.reader.list(service).await;
        }
        let mut watcher = self.reader.watch(service, None).await?;
        loop {
            if let Feed::Set(set) = watcher.next().await? {
                return Ok(set);
            }
        }
    }

    /// Reads again until what is read is as wanted, for as long as a read may be late. Returns what was read last.
    pub(super) async fn read_until<T, F: Future<Output = Result<T>>>(
        &self,
        read: impl Fn() -> F,
        wanted: impl Fn(&T) -> bool,
    ) -> Result<T> {
        let deadline = Instant::now() + self.late;
        loop {
            let found = read().await?;
            if wanted(&found) || Instant::now() >= deadline {
                return Ok(found);
            }
            sleep(READ_AGAIN).await;
        }
    }

    /// Fails unless the reading client comes to list exactly these, in time.
    pub(super) async fn ensure_lists(
        &self,
        when: &str,
        expected: &[Instance],
    ) -> Result<(), Failure> {
        let holds = |set: &Snapshot| self.sight.holds(set, expected);
        let listed = self.read_until(|| self.list(), holds).await?;
        ensure(holds(&listed), || {
            format!(
                "{when}: {expected:?} expected, {:?} listed",
                listed.instances()
            )
        })
    }

    /// Fails unless the reading client still lists exactly these when it would see any change.
    pub(super) async fn ensure_still_lists(
        &self,
        when: &str,
        expected: &[Instance],
    ) -> Result<(), Failure> {
        sleep(self.late).await;
        self.ensure_lists(when, expected).await
    }

    /// Opens a feed at the reading client.
    pub(super) async fn follow(&self) -> Result<Follower> {
        let watcher = self.reader.watch(&self.service, None).await?;
        Ok(self.follower(&self.service, watcher, None))
    }

    /// Reads a feed that was opened with `known`.
    pub(super) fn follower(
        &self,
        service: &ServiceName,
        watcher: Box<dyn Watcher>,
        known: Option<&Snapshot>,
    ) -> Follower {
        Follower::new(service.clone(), watcher, known, TOLD_WITHIN + self.late)
    }

    /// Fails unless a new feed begins with exactly these, or comes to tell them in time if reads may be late.
    pub(super) async fn ensure_begins_with(
        &self,
        follower: &mut Follower,
        expected: &[Instance],
    ) -> Result<(), Failure> {
        follower.step().await?;
        let deadline = Instant::now() + self.late;
        loop {
            let told = follower.latest();
            if told.is_some_and(|set| self.sight.holds(set, expected)) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Failure::Broken(format!(
                    "the feed began with {told:?}, {} instances expected",
                    expected.len()
                )));
            }
            if let Ok(told) = timeout_at(deadline, follower.step()).await {
                told?;
            }
        }
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
                let mut follower = self.follower(&self.service, watcher, Some(known));
                follower.take(&feed)?;
                follower
            }
            Err(error) if outdated(&error) => self.follow().await?,
            Err(error) => return Err(error.into()),
        };
        follower.until(what, wanted).await
    }
}

/// An instance at an address of its own, always the same for an id.
pub(super) fn instance(service: &ServiceName, id: &str) -> Result<Instance> {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let [a, b, c, d, ..] = hasher.finish().to_le_bytes();
    let port = 1024 + u16::from(d);
    let address = format!("10.{a}.{b}.{c}:{port}");
    Ok(Instance::new(service.as_str(), address)?.with_id(InstanceId::new(id)?))
}
