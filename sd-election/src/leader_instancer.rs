//! Who leads, as a service with one instance, so that a client can call the leader.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::clock::{Clock, Moment};
use sd_core::port::{AnyElector, CandidateId, Feed, Leader, LeaderFeed, LeaderWatcher};
use sd_core::{
    ElectionName, Elector, Endpoint, Error, ErrorKind, Incarnation, Instance, InstanceId,
    Instancer, Registry, Result, Revision, ServiceName, Skipped, Snapshot, Watcher,
};

type EndpointOf = Arc<dyn Fn(&[u8]) -> Result<Endpoint> + Send + Sync>;

/// Reads the leader of one election as the only instance of a service, under any name that is asked for. While there is no leader the
/// service has no instance. A former leader is never held: it leaves the set when the registry says so.
///
/// By default a candidate's value is the address at which it can be called: `host:port`, `[ipv6]:port` or `unix:/path`.
/// [`with_endpoint_of`](Self::with_endpoint_of) reads other values. A value without an address is named in
/// [`Snapshot::skipped`].
///
/// The leader that is called may have lost its term since. A call that only a leader may carry out must be checked by its receiver,
/// as [`Fenced`](crate::Fenced) does.
#[derive(Clone)]
pub struct LeaderInstancer {
    name: ElectionName,
    elector: Arc<dyn Elector>,
    clock: Arc<dyn Clock>,
    endpoint_of: EndpointOf,
}

impl LeaderInstancer {
    /// The leader of the election `name`. Does not wait for the server.
    ///
    /// # Errors
    /// `InvalidInput` for a bad name, `Unsupported` if the registry has no elections, `Closed` if it was closed.
    pub fn new(
        registry: &Registry,
        name: impl TryInto<ElectionName, Error: Into<Error>>,
    ) -> Result<Self> {
        let name = name.try_into().map_err(Into::into)?;
        let elector = registry.elector().map(AnyElector::into_any)?;
        Ok(Self {
            name,
            elector,
            clock: Arc::clone(&registry.config().clock),
            endpoint_of: Arc::new(address_in),
        })
    }

    /// Sets how to find a candidate's address in its value.
    #[must_use]
    pub fn with_endpoint_of(
        mut self,
        endpoint_of: impl Fn(&[u8]) -> Result<Endpoint> + Send + Sync + 'static,
    ) -> Self {
        self.endpoint_of = Arc::new(endpoint_of);
        self
    }

    async fn open(&self, service: &ServiceName, known: Option<&Snapshot>) -> Result<LeaderSets> {
        let unread = || Snapshot::unread(service.clone(), self.clock.now());
        Ok(LeaderSets {
            leaders: self.elector.observe(&self.name).await?,
            last: known.cloned().unwrap_or_else(unread),
            election: self.name.clone(),
            endpoint_of: Arc::clone(&self.endpoint_of),
        })
    }
}

impl fmt::Debug for LeaderInstancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaderInstancer")
            .field("name", &self.name)
            .field("elector", &self.elector)
            .finish_non_exhaustive()
    }
}

fn address_in(value: &[u8]) -> Result<Endpoint> {
    let text = std::str::from_utf8(value)
        .map_err(|error| Error::new(ErrorKind::InvalidData, "read leader").with_source(error))?;
    text.parse()
}

#[async_trait]
impl Instancer for LeaderInstancer {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        Err(
            Error::new(ErrorKind::Unsupported, "list services").because(format!(
                "the leader of {} is read under any name: subscribe to one",
                self.name
            )),
        )
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        let mut sets = self.open(service, None).await?;
        loop {
            if let Feed::Set(set) = sets.next().await? {
                return Ok(set);
            }
        }
    }

    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        Ok(Box::new(self.open(service, known).await?))
    }
}

/// A feed of leaders, told as sets.
struct LeaderSets {
    leaders: Box<dyn LeaderWatcher>,
    last: Snapshot,
    election: ElectionName,
    endpoint_of: EndpointOf,
}

impl LeaderSets {
    fn told(&mut self, leader: Option<&Leader>, as_of: Moment) -> Snapshot {
        let service = self.last.service().clone();
        let revision = leader.map_or_else(
            || self.last.revision().clone(),
            |leader| Revision::new(leader.token.domain(), leader.token.value()),
        );
        let (mut instances, mut skipped) = (Vec::new(), Vec::new());
        if let Some(leader) = leader {
            match self.instance(&service, leader) {
                Ok(instance) => instances.push(Arc::new(instance)),
                Err(error) => {
                    let reason = error.report().to_string();
                    skipped.push(Skipped::new(&self.election, reason));
                }
            }
        }
        let gone = self
            .last
            .instances()
            .iter()
            .map(|instance| instance.id().clone())
            .filter(|id| instances.iter().all(|instance| instance.id() != id))
            .collect();
        let set = Snapshot::new(service, revision, as_of, instances).with_skipped(skipped);
        self.last = set.clone();
        set.with_withdrawn(gone)
    }

    fn instance(&self, service: &ServiceName, leader: &Leader) -> Result<Instance> {
        let endpoint = (self.endpoint_of)(&leader.value)?;
        // Another program's entry has no candidate id. Its term is as good: its owner cannot change without a new one.
        let run = leader.id.map_or(leader.token.value(), CandidateId::as_u64);
        let id = InstanceId::new(format!("{run:016x}"))?;
        Ok(Instance::of_run(
            service.clone(),
            id,
            Incarnation::from_u64(run),
            endpoint,
        ))
    }
}

impl fmt::Debug for LeaderSets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaderSets")
            .field("leaders", &self.leaders)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Watcher for LeaderSets {
    async fn next(&mut self) -> Result<Feed> {
        loop {
            match self.leaders.next().await? {
                LeaderFeed::Leader { leader, as_of } => {
                    return Ok(Feed::Set(self.told(leader.as_ref(), as_of)));
                }
                LeaderFeed::Alive { as_of } => {
                    return Ok(Feed::Alive {
                        revision: self.last.revision().clone(),
                        as_of,
                    });
                }
                // Nothing that we know.
                _ => {}
            }
        }
    }

    fn silence_limit(&self) -> Duration {
        self.leaders.silence_limit()
    }
}
