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
use crate::model::instance::{Incarnation, Instance};
use crate::model::name::ServiceName;
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
    services: Arc<BTreeMap<ServiceName, Vec<Arc<Instance>>>>,
}

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
    /// # Errors
    /// `InvalidInput` if two instances of one service have the same id. The old instances then stay.
    pub fn set(&self, instances: impl IntoIterator<Item = Instance>) -> Result<()> {
        let services = Arc::new(by_service(instances)?);
        self.sets.send_modify(|sets| {
            sets.revision += 1;
            sets.services = services;
        });
        Ok(())
    }
}

fn by_service(
    instances: impl IntoIterator<Item = Instance>,
) -> Result<BTreeMap<ServiceName, Vec<Arc<Instance>>>> {
    let mut services: BTreeMap<_, Vec<Arc<Instance>>> = BTreeMap::new();
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
    use crate::InstanceId;

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
