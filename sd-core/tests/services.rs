//! What a subscription to the list of services does with a source that changes, fails and comes back. The clock is paused.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sd_core::clock::TokioClock;
use sd_core::combine::{Fallback, Merge};
use sd_core::memory::Memory;
use sd_core::port::{Attempt, ServicesWatcher, async_trait};
use sd_core::sync::lock;
use sd_core::{
    Error, ErrorKind, Instance, Instancer, Registry, RegistryConfig, Result, ServiceList,
    ServiceName, ServicesState, ServicesSubscription, Snapshot, Watcher,
};
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);
/// An error of this operation stands for a panic.
const PANIC: &str = "panic";

/// A source that answers from a script, and repeats the last answer. It tells of changes by itself, or has to be asked.
#[derive(Clone, Debug)]
struct Names {
    script: Arc<Mutex<Script>>,
    tells: bool,
}

#[derive(Debug, Default)]
struct Script {
    answers: VecDeque<Result<Vec<ServiceName>>>,
    last: Vec<ServiceName>,
    asked: Vec<Instant>,
    opened: usize,
    /// Feeds that tell nothing more are not even alive.
    silent: bool,
    unlisted: usize,
}

impl Names {
    fn new(tells: bool, answers: impl IntoIterator<Item = Result<Vec<ServiceName>>>) -> Self {
        let script = Script {
            answers: answers.into_iter().collect(),
            ..Script::default()
        };
        Self {
            script: Arc::new(Mutex::new(script)),
            tells,
        }
    }

    fn answer(&self) -> Result<Vec<ServiceName>> {
        let mut script = lock(&self.script);
        script.asked.push(Instant::now());
        if let Some(answer) = script.answers.pop_front() {
            let panics = matches!(&answer, Err(error) if error.op() == PANIC);
            assert!(!panics, "it was written so");
            script.last = answer?;
        }
        Ok(script.last.clone())
    }

    fn asked(&self) -> Vec<Instant> {
        lock(&self.script).asked.clone()
    }
}

#[async_trait]
impl Instancer for Names {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        self.answer()
    }

    async fn list_services(&self) -> Result<ServiceList> {
        let list = ServiceList::from(self.services().await?);
        Ok(list.with_unlisted(lock(&self.script).unlisted))
    }

    async fn watch_services(&self) -> Result<Option<Box<dyn ServicesWatcher>>> {
        lock(&self.script).opened += 1;
        Ok(self
            .tells
            .then(|| -> Box<dyn ServicesWatcher> { Box::new(self.clone()) }))
    }

    async fn list(&self, _service: &ServiceName) -> Result<Snapshot> {
        Err(Error::new(ErrorKind::Unsupported, "list"))
    }

    async fn watch(
        &self,
        _service: &ServiceName,
        _known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        Err(Error::new(ErrorKind::Unsupported, "watch"))
    }
}

#[async_trait]
impl ServicesWatcher for Names {
    async fn next(&mut self) -> Result<Vec<ServiceName>> {
        let is_silent = {
            let script = lock(&self.script);
            script.silent && script.answers.is_empty()
        };
        if is_silent {
            return std::future::pending().await;
        }
        sleep(SECOND).await;
        self.answer()
    }

    fn unlisted(&self) -> usize {
        lock(&self.script).unlisted
    }

    fn silence_limit(&self) -> Duration {
        5 * SECOND
    }
}

fn names(names: &[&str]) -> Result<Vec<ServiceName>> {
    names.iter().map(ServiceName::new).collect()
}

fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "scripted").because("the server is down")
}

fn subscribe(source: &Names) -> (Registry, ServicesSubscription) {
    let config = RegistryConfig::default().with_clock(Arc::new(TokioClock));
    let registry = Registry::reading_with(Arc::new(source.clone()), config);
    let services = registry.subscribe_services().unwrap();
    (registry, services)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(3600);
    timeout(limit, what).await.expect("something never happens")
}

fn told(state: &ServicesState) -> (&'static str, Vec<&str>) {
    let names = state.services().iter().map(ServiceName::as_str);
    (state.status().as_str(), names.collect())
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_listed_is_counted_and_a_change_of_that_is_news() {
    for tells in [false, true] {
        let source = Names::new(tells, [names(&["a"])]);
        let (registry, mut services) = subscribe(&source);
        let known = soon(services.changed()).await.unwrap();
        assert_eq!((told(&known), known.unlisted()), (("live", vec!["a"]), 0));
        lock(&source.script).unlisted = 3;
        let counted = soon(services.changed()).await.unwrap();
        assert_eq!(
            (told(&counted), counted.unlisted()),
            (("live", vec!["a"]), 3)
        );
        assert_eq!(registry.list_services().await.unwrap().unlisted, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_of_several_sources_counts_what_each_cannot_list() {
    let source = |name, unlisted| {
        let source = Names::new(false, [names(&[name])]);
        lock(&source.script).unlisted = unlisted;
        Arc::new(source) as Arc<dyn Instancer>
    };
    let (a, b) = (source("a", 2), source("b", 3));
    let merged = Merge::new("a", Arc::clone(&a)).and("b", Arc::clone(&b));
    let list = merged.list_services().await.unwrap();
    assert_eq!((list.services.len(), list.unlisted), (2, 5));
    let first = Fallback::new("a", a).or("b", b);
    assert_eq!(first.list_services().await.unwrap().unlisted, 2);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_has_to_be_asked_for_is_kept_while_the_source_fails_and_followed_when_it_is_back()
 {
    let answers = [
        Err(down()),
        names(&["a"]),
        Err(down()),
        Err(down()),
        names(&["a", "b"]),
    ];
    for tells in [false, true] {
        let source = Names::new(tells, answers.clone());
        let (_registry, mut services) = subscribe(&source);
        assert_eq!(told(&services.state()), ("initializing", vec![]));
        let mut seen = Vec::new();
        while seen.last() != Some(&("live".to_owned(), 2)) {
            let state = soon(services.changed()).await.unwrap();
            let (status, names) = told(&state);
            seen.push((status.to_owned(), names.len()));
        }
        seen.dedup();
        let expected = [("initializing", 0), ("live", 1), ("stale", 1), ("live", 2)];
        assert_eq!(seen, expected.map(|(status, n)| (status.to_owned(), n)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_is_asked_again_and_the_list_is_stale_meanwhile() {
    for tells in [false, true] {
        let panic = Err(Error::new(ErrorKind::Unavailable, PANIC));
        let source = Names::new(tells, [names(&["a"]), panic, names(&["a", "b"])]);
        let (_registry, mut services) = subscribe(&source);
        soon(services.changed()).await.unwrap();
        let stale = soon(services.changed()).await.unwrap();
        assert_eq!(told(&stale), ("stale", vec!["a"]));
        let why = stale.status().error().unwrap().report().to_string();
        assert!(why.contains("panicked: it was written so"), "{why}");
        let well = soon(services.changed()).await.unwrap();
        assert_eq!(told(&well), ("live", vec!["a", "b"]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_has_to_be_asked_is_asked_now_and_then_by_one_task_for_all() {
    let source = Names::new(false, [names(&["a"])]);
    let (registry, services) = subscribe(&source);
    let others: Vec<_> = (0..9)
        .map(|_| registry.subscribe_services().unwrap())
        .collect();
    for one in others.iter().chain([&services]) {
        let state = one.wait_until_known(SECOND).await.unwrap();
        assert_eq!(told(&state), ("live", vec!["a"]));
    }
    sleep(Duration::from_secs(1000)).await;
    let asked = source.asked();
    assert!((84..=126).contains(&asked.len()), "{}", asked.len());
    let pauses = asked.windows(2).map(|pair| pair[1] - pair[0]);
    let bounds = Duration::from_secs(8)..=Duration::from_millis(12_001);
    let (mut shortest, mut longest) = (Duration::MAX, Duration::ZERO);
    for pause in pauses {
        assert!(bounds.contains(&pause), "{pause:?}");
        (shortest, longest) = (shortest.min(pause), longest.max(pause));
    }
    // Many clients do not ask at the same time.
    assert!(longest > shortest + SECOND, "{shortest:?} {longest:?}");
    drop((others, services));
    sleep(SECOND).await;
    let asked = source.asked().len();
    sleep(Duration::from_secs(1000)).await;
    assert_eq!(source.asked().len(), asked);
}

#[tokio::test(start_paused = true)]
async fn a_feed_of_services_that_falls_silent_is_replaced() {
    let source = Names::new(true, [names(&["a"])]);
    source.script.lock().unwrap().silent = true;
    let (_registry, mut services) = subscribe(&source);
    soon(services.changed()).await.unwrap();
    let stale = soon(services.changed()).await.unwrap();
    assert_eq!(told(&stale), ("stale", vec!["a"]));
    assert_eq!(stale.status().error().unwrap().kind(), ErrorKind::Timeout);
    source.script.lock().unwrap().silent = false;
    let well = soon(services.changed()).await.unwrap();
    assert_eq!(told(&well), ("live", vec!["a"]));
}

#[tokio::test(start_paused = true)]
async fn a_healthy_feed_of_services_is_replaced_now_and_then_without_a_change() {
    let source = Names::new(true, [names(&["a"])]);
    let (_registry, mut services) = subscribe(&source);
    soon(services.changed()).await.unwrap();
    let early = timeout(Duration::from_secs(3600), services.changed()).await;
    assert!(early.is_err(), "{early:?}");
    let opened = source.script.lock().unwrap().opened;
    assert!((11..=16).contains(&opened), "{opened}");
}

#[tokio::test(start_paused = true)]
async fn why_services_are_not_known_is_said_and_a_closed_registry_ends_the_subscription() {
    let source = Names::new(false, (0..1000).map(|_| Err(down())));
    let (registry, mut services) = subscribe(&source);
    let error = services.wait_until_known(SECOND).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.report().to_string().contains("the server is down"));
    registry.close().await.unwrap();
    let ended = async {
        loop {
            if let Err(error) = services.changed().await {
                return error.kind();
            }
        }
    };
    assert_eq!(soon(ended).await, ErrorKind::Closed);
    let error = registry.subscribe_services().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_embedded_registry_tells_which_services_come_go_and_expire() {
    let memory = Memory::new();
    let (writer, reader) = (memory.connect(), memory.connect());
    let mut services = reader.subscribe_services().unwrap();
    let state = soon(services.changed()).await.unwrap();
    assert_eq!(told(&state), ("live", vec![]));

    let register = |service: &str, address: &str| {
        let instance = Instance::new(service, address).unwrap();
        writer.register(instance)
    };
    let start = Instant::now();
    let one = register("a", "h:1").await.unwrap();
    assert_eq!(told(&soon(services.changed()).await.unwrap()).1, ["a"]);
    let two = register("a", "h:2").await.unwrap();
    one.deregister().await.unwrap();
    let other = register("b", "h:3").await.unwrap();
    assert_eq!(told(&soon(services.changed()).await.unwrap()).1, ["a", "b"]);
    two.deregister().await.unwrap();
    assert_eq!(told(&soon(services.changed()).await.unwrap()).1, ["b"]);
    // It was not polled.
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    drop(other);
    assert_eq!(told(&soon(services.changed()).await.unwrap()).1, [""; 0]);

    let backend = Arc::new(memory.backend());
    let registrar = sd_core::Backend::registrar(backend).unwrap();
    let attempt = Attempt::new(3 * SECOND);
    let instance = Instance::new("c", "h:1").unwrap();
    registrar.register(&instance, &attempt).await.unwrap();
    assert_eq!(told(&soon(services.changed()).await.unwrap()).1, ["c"]);
    let start = Instant::now();
    assert_eq!(told(&soon(services.changed()).await.unwrap()).1, [""; 0]);
    let took = start.elapsed();
    assert!(took >= 2 * SECOND && took < 4 * SECOND, "{took:?}");
}
