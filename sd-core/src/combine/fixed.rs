//! A fixed set that the program supplies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::relay::{Relay, SILENCE_LIMIT, View};
use crate::clock::{BootClock, Clock};
use crate::error::{Error, Result};
use crate::model::endpoint::Endpoint;
use crate::model::instance::{Incarnation, Instance};
use crate::model::name::{InstanceId, ServiceName};
use crate::model::snapshot::{Revision, Snapshot};
use crate::port::instancer::{Feed, Instancer, Watcher};

/// A source whose instances the program supplies. They stay until [`set`](Self::set) replaces them.
#[derive(Debug)]
pub struct Static {
    sets: watch::Sender<Sets>,
    domain: Arc<str>,
    clock: Arc<dyn Clock>,
}

/// All services at one revision. Cheap to clone.
#[derive(Clone, Debug)]
struct Sets {
    revision: u64,
    services: Arc<Services>,
}

/// The instances of each service, sorted by id.
type Services = BTreeMap<ServiceName, Vec<Arc<Instance>>>;

impl Static {
    /// A source of these instances, which may belong to several services.
    ///
    /// # Errors
    /// `InvalidInput` if two instances of one service have the same id.
    pub fn new(instances: impl IntoIterator<Item = Instance>) -> Result<Self> {
        Ok(Self {
            sets: watch::Sender::new(Sets {
                revision: 1,
                services: Arc::new(by_service(instances)?),
            }),
            domain: format!("static-{}", Incarnation::random()).into(),
            clock: Arc::new(BootClock),
        })
    }

    /// Sets the clock that measures ages. Default [`BootClock`].
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Replaces all instances of all services.
    ///
    /// What stays at its address stays the same run, although each [`Instance::new`] is a new one: an instance goes on as the one
    /// with the same address and id, or with the same address if its id was made of it. So the same addresses again change
    /// nothing, and clients keep their connections.
    ///
    /// # Errors
    /// `InvalidInput` if two instances of one service have the same id. The old instances then stay.
    pub fn set(&self, instances: impl IntoIterator<Item = Instance>) -> Result<()> {
        let wanted = by_service(instances)?;
        self.sets.send_if_modified(|sets| {
            let services = continued(&sets.services, wanted);
            let differs = services != *sets.services;
            if differs {
                sets.revision += 1;
                sets.services = Arc::new(services);
            }
            differs
        });
        Ok(())
    }
}

/// What is wanted, as the same runs as before where it is at the same addresses.
fn continued(before: &Services, mut wanted: Services) -> Services {
    for (service, list) in &mut wanted {
        let before = before.get(service).map_or(&[][..], Vec::as_slice);
        let mut by_id: BTreeMap<&InstanceId, &Arc<Instance>> =
            before.iter().map(|one| (one.id(), one)).collect();
        // First those that name whom they continue.
        let (mut named, mut others) = (Vec::new(), Vec::new());
        for one in std::mem::take(list) {
            match by_id.get(one.id()) {
                Some(old) if old.endpoint() == one.endpoint() => {
                    named.push(goes_on(old, &one));
                    by_id.remove(one.id());
                }
                _ => others.push(one),
            }
        }
        let mut by_address: BTreeMap<&Endpoint, Vec<&Arc<Instance>>> = BTreeMap::new();
        for old in by_id.into_values().filter(|old| old.id_holds_incarnation()) {
            by_address.entry(old.endpoint()).or_default().push(old);
        }
        let others = others.into_iter().map(|one| {
            let made_of_address = one.id_holds_incarnation();
            let old = by_address
                .get_mut(one.endpoint())
                .filter(|_| made_of_address);
            match old.and_then(Vec::pop) {
                Some(old) => goes_on(old, &one),
                None => one,
            }
        });
        named.extend(others);
        named.sort_by(|a, b| a.id().cmp(b.id()));
        *list = named;
    }
    wanted
}

/// `wanted` as the same run as `before`.
fn goes_on(before: &Arc<Instance>, wanted: &Instance) -> Arc<Instance> {
    let (id, run) = (before.id().clone(), before.incarnation());
    let wanted = wanted.clone().with_id(id).with_incarnation(run);
    if wanted == **before {
        return Arc::clone(before);
    }
    Arc::new(wanted)
}

fn by_service(instances: impl IntoIterator<Item = Instance>) -> Result<Services> {
    let mut services = Services::new();
    for instance in instances {
        let service = services.entry(instance.service().clone()).or_default();
        service.push(Arc::new(instance));
    }
    for (service, list) in &mut services {
        list.sort_by(|a, b| a.id().cmp(b.id()));
        if let Some(twice) = list.windows(2).find_map(|pair| match pair {
            [a, b] if a.id() == b.id() => Some(a.id()),
            _ => None,
        }) {
            return Err(Error::invalid_input(
                "static set",
                format!(
                    "two instances of {service} have the id {twice}: give each an id of its own"
                ),
            ));
        }
    }
    Ok(services)
}

impl Sets {
    fn snapshot(&self, service: &ServiceName, domain: &Arc<str>, clock: &dyn Clock) -> Snapshot {
        Snapshot::new(
            service.clone(),
            Revision::new(Arc::clone(domain), self.revision),
            clock.now(),
            self.services.get(service).cloned().unwrap_or_default(),
        )
    }
}

#[async_trait]
impl Instancer for Static {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        Ok(self.sets.borrow().services.keys().cloned().collect())
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        let sets = self.sets.borrow().clone();
        Ok(sets.snapshot(service, &self.domain, self.clock.as_ref()))
    }

    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        Ok(Box::new(StaticWatcher {
            service: service.clone(),
            sets: self.sets.subscribe(),
            domain: Arc::clone(&self.domain),
            clock: Arc::clone(&self.clock),
            relay: Relay::new(known),
        }))
    }
}

#[derive(Debug)]
struct StaticWatcher {
    service: ServiceName,
    sets: watch::Receiver<Sets>,
    domain: Arc<str>,
    clock: Arc<dyn Clock>,
    relay: Relay,
}

#[async_trait]
impl Watcher for StaticWatcher {
    async fn next(&mut self) -> Result<Feed> {
        loop {
            let sets = self.sets.borrow_and_update().clone();
            let view = View {
                set: Some(sets.snapshot(&self.service, &self.domain, self.clock.as_ref())),
                trouble: None,
            };
            if let Some(news) = self.relay.news(view) {
                return Ok(news);
            }
            let repeat_at = self.relay.repeat_at();
            tokio::select! {
                // Only its `Static` could replace the set. Without it, the set just stays.
                Ok(()) = self.sets.changed() => {}
                () = sleep_until(repeat_at) => {}
            }
        }
    }

    fn silence_limit(&self) -> Duration {
        SILENCE_LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, port: u16) -> Instance {
        Instance::new("s", format!("h:{port}"))
            .unwrap()
            .with_id(InstanceId::new(id).unwrap())
    }

    fn service() -> ServiceName {
        ServiceName::new("s").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn tells_its_set_once_and_then_that_it_is_alive_even_after_the_handle_is_gone() {
        let source = Static::new([instance("a", 1)]).unwrap();
        let mut feed = source.watch(&service(), None).await.unwrap();
        assert!(matches!(feed.next().await.unwrap(), Feed::Set(set) if set.len() == 1));
        assert!(matches!(feed.next().await.unwrap(), Feed::Alive { .. }));
        drop(source);
        assert!(matches!(feed.next().await.unwrap(), Feed::Alive { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_replaced_set_is_told_at_once_and_what_left_it_is_withdrawn() {
        let source = Static::new([instance("a", 1), instance("b", 2)]).unwrap();
        let mut feed = source.watch(&service(), None).await.unwrap();
        feed.next().await.unwrap();
        source.set([instance("b", 2), instance("c", 3)]).unwrap();
        let Feed::Set(set) = feed.next().await.unwrap() else {
            panic!("no set");
        };
        assert_eq!(set.withdrawn(), [InstanceId::new("a").unwrap()]);
        assert_eq!(set.len(), 2);
        assert_eq!(
            source.list(&service()).await.unwrap().revision(),
            set.revision()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_addresses_again_change_nothing_and_a_changed_one_stays_the_same_run() {
        let of = |address: &str| Instance::new("s", address).unwrap();
        let all = || {
            [
                of("h:1"),
                of("h:2"),
                of("h:2"),
                of("unix:/s"),
                instance("chosen", 3),
            ]
        };
        let source = Static::new(all()).unwrap();
        let before = source.list(&service()).await.unwrap();
        for _ in 0..10 {
            source.set(all()).unwrap();
        }
        let after = source.list(&service()).await.unwrap();
        assert_eq!(after.revision(), before.revision());
        assert!(after.is_same_set(&before));

        source.set([of("h:1").with_weight(7), of("h:4")]).unwrap();
        let changed = source.list(&service()).await.unwrap();
        let at = |set: &Snapshot, address: &str| {
            let mut all = set.instances().iter();
            Arc::clone(
                all.find(|one| one.endpoint().to_string() == address)
                    .unwrap(),
            )
        };
        let one = at(&changed, "h:1");
        assert!(one.is_same_run(&at(&before, "h:1")) && one.weight() == 7);
        assert_eq!(changed.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_names_a_run_continues_that_run_and_no_other() {
        let old = Instance::new("s", "h:1").unwrap();
        let source = Static::new([old.clone()]).unwrap();
        let second = Instance::new("s", "h:1").unwrap();
        source.set([second.clone(), old.clone()]).unwrap();
        let both = source.list(&service()).await.unwrap();
        assert_eq!(both.get(old.id()).map(AsRef::as_ref), Some(&old));
        assert_eq!(both.get(second.id()).map(AsRef::as_ref), Some(&second));
        // A chosen id at another address is another instance.
        source.set([instance("chosen", 1)]).unwrap();
        let moved = instance("chosen", 2);
        source.set([moved.clone()]).unwrap();
        let set = source.list(&service()).await.unwrap();
        assert_eq!(set.get(moved.id()).map(AsRef::as_ref), Some(&moved));
    }

    #[tokio::test]
    async fn an_unknown_service_is_empty_and_a_duplicate_id_is_refused() {
        let source = Static::new([instance("a", 1)]).unwrap();
        let other = ServiceName::new("other").unwrap();
        assert!(source.list(&other).await.unwrap().is_empty());
        let error = Static::new([instance("a", 1), instance("a", 2)]).unwrap_err();
        assert!(
            error.report().to_string().contains("have the id a"),
            "{error:?}"
        );
        assert!(source.set([instance("a", 1), instance("a", 2)]).is_err());
        assert_eq!(source.list(&service()).await.unwrap().len(), 1);
    }
}
