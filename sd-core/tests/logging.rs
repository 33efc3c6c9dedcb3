//! What is logged of a registry whose every text is hostile.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, in its helpers as well"
)]

use std::fmt::Debug;
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sd_core::clock::Moment;
use sd_core::memory::Memory;
use sd_core::port::{Feed, Instancer, Watcher, async_trait};
use sd_core::sync::lock;
use sd_core::{
    EndpointCache, Error, ErrorKind, Instance, InstanceId, Printable, Registry, Result, Revision,
    ServiceName, Skipped, Snapshot,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber, subscriber};

/// A line end, an escape sequence in two forms, a change of direction and an invisible character.
const HOSTILE: &str = "x\nERROR forged\u{1b}[2J\u{9b}2J\u{202e}y\u{200b}";
/// As much of it as a name may hold.
const NAME: &str = "x\u{202e}y\u{200b}";

/// Every value that was logged, as a subscriber gets it.
#[derive(Clone, Debug, Default)]
struct Logged(Arc<Mutex<Vec<(String, String)>>>);

impl Logged {
    fn of(&self, field: &str) -> Vec<String> {
        let values = lock(&self.0);
        let values = values.iter().filter(|(name, _)| name == field);
        values.map(|(_, value)| value.clone()).collect()
    }
}

impl Visit for Logged {
    fn record_str(&mut self, field: &Field, value: &str) {
        lock(&self.0).push((field.name().to_owned(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

impl Subscriber for Logged {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Debug)]
struct Hostile;

fn error() -> Error {
    Error::new(ErrorKind::Unavailable, "hostile").because(HOSTILE)
}

fn instance(service: &ServiceName) -> Instance {
    let instance = Instance::new(service, format!("unix:/run/{NAME}")).unwrap();
    instance
        .with_id(InstanceId::new(NAME).unwrap())
        .with_metadata(HOSTILE, HOSTILE)
}

#[async_trait]
impl Instancer for Hostile {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        Err(error())
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        let revision = Revision::new(HOSTILE, 1);
        let instances = vec![Arc::new(instance(service))];
        let snapshot = Snapshot::new(service.clone(), revision, Moment::ZERO, instances);
        Ok(snapshot.with_skipped(vec![Skipped::new(HOSTILE, HOSTILE)]))
    }

    async fn watch(&self, service: &ServiceName, _: Option<&Snapshot>) -> Result<Box<dyn Watcher>> {
        Ok(Box::new(Once(Some(self.list(service).await?))))
    }
}

/// Tells one set, then ends.
#[derive(Debug)]
struct Once(Option<Snapshot>);

#[async_trait]
impl Watcher for Once {
    async fn next(&mut self) -> Result<Feed> {
        self.0.take().map(Feed::Set).ok_or_else(error)
    }

    fn silence_limit(&self) -> Duration {
        Duration::from_secs(60)
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_from_outside_is_logged_unescaped() {
    let logged = Logged::default();
    subscriber::set_global_default(logged.clone()).unwrap();
    let service = ServiceName::new(NAME).unwrap();
    let limit = Duration::from_secs(10);

    let registry = Registry::reading(Arc::new(Hostile));
    let mut instances = registry.subscribe(&service).unwrap();
    instances.wait_until_known(limit).await.unwrap();
    while instances.state().status().error().is_none() {
        instances.changed().await.unwrap();
    }
    registry
        .subscribe_services()
        .unwrap()
        .wait_until_known(limit)
        .await
        .unwrap_err();
    let refused = |_| ready(Err::<String, _>(HOSTILE));
    let _cache = EndpointCache::builder(instances, refused).build().unwrap();
    let told = async {
        while logged.of("instance").is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told)
        .await
        .unwrap();
    let registry = Memory::new().connect();
    let guard = registry.register(instance(&service)).await.unwrap();
    guard.deregister().await.unwrap();

    let values = lock(&logged.0).clone();
    for (field, value) in &values {
        assert!(
            value.chars().all(Printable::is_printable),
            "{field}: {value:?}"
        );
    }
    for field in ["service", "instance", "error", "key", "reason"] {
        assert!(!logged.of(field).is_empty(), "{field}: {values:?}");
    }
}
