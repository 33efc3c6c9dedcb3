//! A registry as such: what it says of itself, and one over any source that can be read. The clock is paused.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use sd_core::clock::{Moment, TokioClock};
use sd_core::combine::{Fallback, File, Merge, Static};
use sd_core::memory::Memory;
use sd_core::port::Feed;
use sd_core::{
    Error, ErrorKind, Instance, InstanceId, Registry, RegistryConfig, Revision, ServiceName,
    Snapshot, State, Subscription,
};
use sd_testing::{Answer, Op, ScriptedBackend};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(5 * 60);

fn instance(id: &str, address: &str) -> Instance {
    let id = InstanceId::new(id).unwrap();
    Instance::new("s", address).unwrap().with_id(id)
}

fn service() -> ServiceName {
    ServiceName::new("s").unwrap()
}

fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "scripted").because("the server is down")
}

fn over(backend: &ScriptedBackend) -> Registry {
    let config = RegistryConfig::default().with_clock(Arc::new(TokioClock));
    Registry::with_config(Arc::new(backend.clone()), config)
}

fn ids(state: &State) -> Vec<&str> {
    let ids = state.instances().iter().map(|one| one.id().as_str());
    ids.collect()
}

async fn until(subscription: &mut Subscription, wanted: impl Fn(&State) -> bool) -> State {
    let waiting = async {
        let mut state = subscription.state_and_mark_seen();
        while !wanted(&state) {
            state = subscription.changed().await.unwrap();
        }
        state
    };
    timeout(SOON, waiting).await.expect("a state as wanted")
}

#[tokio::test(start_paused = true)]
async fn a_file_a_fixed_set_and_combinations_are_read_through_a_registry_that_refuses_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("services.json");
    let json = r#"{"services": {"s": [{"address": "h:1", "id": "f"}]}}"#;
    std::fs::write(&path, json).unwrap();
    let fixed = || Arc::new(Static::new([instance("f", "h:1")]).unwrap());
    let sources: [Arc<dyn sd_core::Instancer>; 4] = [
        fixed(),
        Arc::new(File::new(&path)),
        Arc::new(Merge::new("one", fixed()).and("two", fixed())),
        Arc::new(Fallback::new("one", fixed()).or("two", fixed())),
    ];
    for source in sources {
        let registry = Registry::reading(source);
        registry.check().await.unwrap();
        assert_eq!(registry.services().await.unwrap(), [service()]);
        assert_eq!(registry.list(&service()).await.unwrap().len(), 1);
        let subscription = registry.subscribe("s").unwrap();
        let state = subscription.wait_until_ready(SOON).await.unwrap();
        assert_eq!(ids(&state), ["f"]);
        let services = registry.subscribe_services().unwrap();
        let services = services.wait_until_known(SOON).await.unwrap();
        assert_eq!(services.services(), [service()]);

        let register = registry.register(instance("g", "h:2"));
        let checked = register.check().unwrap_err();
        let error = register.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(checked.report().to_string(), error.report().to_string());
        let report = error.report().to_string();
        assert!(report.contains("can only be read"), "{report}");
        let error = registry.elector().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        registry.close().await.unwrap();
        let error = registry.backend().list(&service()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_in_a_combination_shares_its_feeds_and_shows_them() {
    let memory = Memory::new();
    let (here, there) = (memory.connect(), Memory::new().connect());
    let _a = here.register(instance("a", "h:1")).await.unwrap();
    let _b = there.register(instance("b", "h:2")).await.unwrap();
    let own = here.subscribe("s").unwrap();
    let merge = Registry::reading(Arc::new(
        Merge::new("here", &here).and("there", there.clone()),
    ));
    let mut both = merge.subscribe("s").unwrap();
    until(&mut both, |state| ids(state) == ["a", "b"]).await;
    assert_eq!(here.dump().subscriptions.len(), 1);
    assert_eq!(there.dump().subscriptions.len(), 1);
    assert_eq!(merge.list(&service()).await.unwrap().len(), 2);
    drop(own);

    // Its owner closes one. Its part stays, and the other one is followed.
    there.close().await.unwrap();
    let stale = until(&mut both, |state| state.status().as_str() == "stale").await;
    assert_eq!(ids(&stale), ["a", "b"]);
    let why = stale.status().error().unwrap().report().to_string();
    assert!(why.contains("there: ") && why.contains("closed"), "{why}");
    let _c = here.register(instance("c", "h:3")).await.unwrap();
    until(&mut both, |state| ids(state) == ["a", "b", "c"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_fallback_leaves_a_registry_that_was_closed() {
    let (first, second) = (Memory::new().connect(), Memory::new().connect());
    let _a = first.register(instance("a", "h:1")).await.unwrap();
    let _b = second.register(instance("b", "h:2")).await.unwrap();
    let fallback = Fallback::new("first", &first).or("second", &second);
    let registry = Registry::reading(Arc::new(fallback));
    let mut one = registry.subscribe("s").unwrap();
    until(&mut one, |state| ids(state) == ["a"]).await;
    first.close().await.unwrap();
    until(&mut one, |state| ids(state) == ["b"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_was_closed_before_does_not_keep_a_combination_from_the_others() {
    let (closed, other) = (Memory::new().connect(), Memory::new().connect());
    let _b = other.register(instance("b", "h:2")).await.unwrap();
    closed.close().await.unwrap();
    let fallback = Fallback::new("closed", &closed).or("other", &other);
    let mut one = Registry::reading(Arc::new(fallback))
        .subscribe("s")
        .unwrap();
    until(&mut one, |state| ids(state) == ["b"]).await;
    let merge = Merge::new("closed", &closed).and("other", other.clone());
    let mut both = Registry::reading(Arc::new(merge)).subscribe("s").unwrap();
    let state = until(&mut both, |state| ids(state) == ["b"]).await;
    assert_eq!(state.status().as_str(), "stale");
}

#[tokio::test(start_paused = true)]
async fn a_check_asks_the_server_and_says_why_it_cannot_be_used() {
    let registry = Memory::new().connect();
    registry.check().await.unwrap();
    let backend = Arc::clone(registry.backend());
    backend.close().await.unwrap();
    let error = registry.check().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    registry.close().await.unwrap();
    let error = registry.check().await.unwrap_err();
    assert!(
        error
            .report()
            .to_string()
            .contains("the registry was closed")
    );
}

#[tokio::test(start_paused = true)]
async fn health_names_what_is_unknown_stale_or_not_registered_and_an_outage_makes_nothing_unready()
{
    let backend = ScriptedBackend::default();
    let registry = over(&backend);
    let well = registry.health();
    assert!(well.is_ready());
    assert_eq!(well.to_string(), "well");

    for _ in 0..2 {
        backend.instancer.answer_opening(Answer::Fail(down()));
    }
    let mut subscription = registry.subscribe("s").unwrap();
    let health = registry.health();
    assert!(!health.is_ready());
    assert_eq!(health.unknown, [service()]);
    assert_eq!(health.to_string(), "not read yet: s");

    let set = Snapshot::new(service(), Revision::new("d", 1), Moment::ZERO, Vec::new());
    backend.instancer.tell(Ok(Feed::Set(set)));
    until(&mut subscription, State::is_known).await;
    assert!(registry.health().is_ready());
    for _ in 0..1000 {
        backend.instancer.answer_opening(Answer::Fail(down()));
    }
    backend.instancer.tell(Err(down()));
    until(&mut subscription, |state| {
        state.status().as_str() == "stale"
    })
    .await;

    let fails = Answer::Fail(down());
    backend.registrar.answer_all(Op::Register, fails);
    let one = instance("a", "h:1");
    let _guard = registry.register(one.clone()).in_background().unwrap();
    let health = registry.health();
    assert_eq!(health.unregistered, [one.record_id()]);
    assert_eq!(health.to_string(), "stale: s; not registered: a of s");
    assert!(health.is_ready());
    let json = serde_json::to_value(&health).unwrap();
    assert_eq!(json["stale"], serde_json::json!(["s"]));

    registry.close().await.unwrap();
    let health = registry.health();
    assert!(health.closed && !health.is_ready());
    assert_eq!(health.to_string(), "closed");
}
