//! Streams of events: what they tell, how they resume, and how they end.

use std::collections::BTreeMap;
use std::time::Duration;

use sd_core::memory::Memory;
use sd_core::port::Feed;
use sd_sidecar::daemon::lifecycle::Lifecycle;
use sd_testing::{Answer, LONG, ScriptedInstancer, eventually};
use serde_json::{Value, json};

use crate::api::refused;
use crate::common::sets::{greeter, set};
use crate::common::{Frame, SseStream, TestAgent, TestConfig};
use crate::discovery::{refusal, scripted};

pub(crate) const EVENTS: &str = "/v1/services/greeter/events";

fn ids(frame: &Frame) -> Vec<String> {
    let service = frame.json();
    let instances = service["instances"].as_array().unwrap().iter();
    instances
        .map(|one| one["id"].as_str().unwrap().to_owned())
        .collect()
}

/// The snapshot that has these instances, and how many came before it.
pub(crate) async fn with_ids(stream: &mut SseStream, expected: &[&str]) -> (Frame, usize) {
    let mut before = 0;
    loop {
        let frame = stream.event().await;
        assert_eq!(frame.event(), "snapshot", "{frame:?}");
        if ids(&frame) == expected {
            return (frame, before);
        }
        before += 1;
    }
}

fn beating(every: Duration) -> TestConfig {
    TestConfig::with_api(|api| api.heartbeat = every)
}

#[tokio::test]
async fn a_stream_tells_the_whole_set_first_and_after_each_change() {
    let agent = TestAgent::start().await;
    let mut stream = agent.client().events(EVENTS).await;
    assert_eq!(stream.headers["cache-control"], "no-cache");
    let (empty, _) = with_ids(&mut stream, &[]).await;
    assert_eq!(empty.json()["status"], "live");
    assert_eq!(empty.json()["index"], empty.id());
    let guard = agent.registry.register(greeter("g-1", 1)).await.unwrap();
    let (one, _) = with_ids(&mut stream, &["g-1"]).await;
    assert_ne!(one.id(), empty.id());
    guard.set_ready(false).await.unwrap();
    let (unready, _) = with_ids(&mut stream, &["g-1"]).await;
    assert_eq!(unready.json()["instances"][0]["ready"], false);
    guard.deregister().await.unwrap();
    let (gone, _) = with_ids(&mut stream, &[]).await;
    assert_eq!(gone.id(), empty.id(), "an id names what a reader has");
}

#[tokio::test]
async fn a_stream_is_of_the_instances_that_its_query_selects() {
    let agent = TestAgent::start().await;
    let client = agent.client();
    let first = agent.registry.register(greeter("g-1", 1)).await.unwrap();
    let _other = agent
        .registry
        .register(greeter("g-2", 2).with_zone("b"))
        .await
        .unwrap();
    let mut ready = client.events(&format!("{EVENTS}?ready=true")).await;
    let mut unready = client
        .events(&format!("{EVENTS}?ready=false&zone=none"))
        .await;
    with_ids(&mut ready, &["g-1", "g-2"]).await;
    let (none, _) = with_ids(&mut unready, &[]).await;
    first.set_ready(false).await.unwrap();
    with_ids(&mut ready, &["g-2"]).await;
    first.deregister().await.unwrap();
    // What changes none of them is not told.
    let _third = agent
        .registry
        .register(greeter("g-3", 3).with_zone("none").with_ready(false))
        .await
        .unwrap();
    assert_eq!(with_ids(&mut unready, &["g-3"]).await.1, 0);
    let again = client.with("last-event-id", none.id());
    let list = again
        .get("/v1/services/greeter?ready=false&zone=none")
        .await
        .expect(200);
    let mut again = again
        .events(&format!("{EVENTS}?ready=false&zone=none"))
        .await;
    let (missed, _) = with_ids(&mut again, &["g-3"]).await;
    assert_eq!(missed.id(), list["index"]);
}

/// What a reader of changes has after an event.
fn apply(has: &mut BTreeMap<String, Value>, frame: &Frame) {
    let told = frame.json();
    let (set, removed) = match frame.event() {
        "snapshot" => {
            has.clear();
            (&told["instances"], None)
        }
        "change" => (&told["set"], told["removed"].as_array()),
        other => panic!("{other}"),
    };
    for id in removed.into_iter().flatten() {
        has.remove(id.as_str().unwrap());
    }
    for one in set.as_array().unwrap() {
        has.insert(one["id"].as_str().unwrap().to_owned(), one.clone());
    }
}

#[tokio::test]
async fn a_reader_of_changes_is_told_what_is_different_and_has_the_whole_set() {
    let agent = TestAgent::start().await;
    let client = agent.client();
    let mut guards = Vec::new();
    for port in 10..30 {
        let instance = greeter(&format!("g-{port}"), port);
        guards.push(agent.registry.register(instance).await.unwrap());
    }
    let list = async || client.get("/v1/services/greeter").await.expect(200);
    let all_seen = async || list().await["instances"].as_array().map(Vec::len) == Some(20);
    eventually("all are seen", LONG, all_seen).await;
    let mut has = BTreeMap::new();
    let mut stream = client.events(&format!("{EVENTS}?changes=true")).await;
    let first = stream.event().await;
    assert_eq!(first.event(), "snapshot");
    apply(&mut has, &first);

    guards[0].set_ready(false).await.unwrap();
    let change = stream.event().await;
    assert_eq!(change.event(), "change");
    let told = change.json();
    assert_eq!(told["set"].as_array().unwrap().len(), 1, "{told}");
    assert_eq!(told["set"][0]["ready"], false);
    assert_eq!(told["status"], "live");
    apply(&mut has, &change);
    guards.pop().unwrap().deregister().await.unwrap();
    let change = stream.event().await;
    assert_eq!(change.json()["removed"], json!(["g-29"]));
    assert_eq!(change.json()["set"], json!([]));
    apply(&mut has, &change);
    let is_listed = |has: &BTreeMap<String, Value>, listed: &Value| {
        let listed = listed["instances"].as_array().unwrap();
        has.values().eq(listed.iter())
    };
    let listed = list().await;
    assert!(is_listed(&has, &listed), "{has:?}");
    assert_eq!(change.id(), listed["index"]);

    // One that returns is told the changes that it missed; one that was never here, the set.
    let mut missed = BTreeMap::new();
    apply(&mut missed, &first);
    let again = client.with("last-event-id", first.id());
    let mut again = again.events(&format!("{EVENTS}?changes")).await;
    for _ in 0..2 {
        let change = again.event().await;
        assert_eq!(change.event(), "change");
        apply(&mut missed, &change);
    }
    assert!(is_listed(&missed, &listed), "{missed:?}");
    let unknown = client.with("last-event-id", "0123.live");
    let mut unknown = unknown.events(&format!("{EVENTS}?changes=true")).await;
    assert_eq!(unknown.event().await.event(), "snapshot");

    // However it is told, the set is right.
    for guard in guards.drain(..12) {
        guard.deregister().await.unwrap();
    }
    while has.len() > 7 {
        apply(&mut has, &stream.event().await);
    }
    assert!(is_listed(&has, &list().await), "{has:?}");
}

#[tokio::test]
async fn changes_are_those_of_the_whole_set_alone() {
    let agent = TestAgent::start().await;
    for query in ["changes=true&ready=true", "changes&zone=a", "changes=yes"] {
        let reply = agent.client().get(&format!("{EVENTS}?{query}")).await;
        let error = refused(&reply, 400, "invalid_request");
        assert!(error.contains("changes"), "{error}");
    }
}

#[tokio::test]
async fn a_reader_of_changes_hears_that_the_registry_failed_after_the_change() {
    let source = ScriptedInstancer::default();
    let two = |ready| vec![greeter("g-1", 1), greeter("g-2", 2).with_ready(ready)];
    source.tell(Ok(Feed::Set(set(1, two(true)))));
    let agent = TestAgent::start_at(scripted(&source), TestConfig::default()).await;
    let client = agent.client();
    let mut stream = client.events(&format!("{EVENTS}?changes=true")).await;
    let first = stream.event_named("snapshot").await;
    source.tell(Ok(Feed::Set(set(2, two(false)))));
    assert_eq!(stream.event().await.event(), "change");
    source.tell(Err(refusal()));
    source.tell(Err(refusal()));
    let degraded = stream.event().await;
    assert_eq!(degraded.event(), "degraded");
    let again = client.with("last-event-id", first.id());
    let mut again = again.events(&format!("{EVENTS}?changes=true")).await;
    let change = again.event().await;
    assert_eq!(
        (change.event(), &change.json()["status"]),
        ("change", &json!("live"))
    );
    let told = again.event().await;
    assert_eq!((told.event(), told.id()), ("degraded", degraded.id()));
}

#[tokio::test]
async fn a_reader_that_returns_is_told_what_it_missed_once_and_nothing_if_it_missed_nothing() {
    let agent =
        TestAgent::start_at(Memory::new().connect(), beating(Duration::from_millis(100))).await;
    let mut stream = agent.client().events(EVENTS).await;
    let (empty, _) = with_ids(&mut stream, &[]).await;
    drop(stream);
    let again = agent.client().with("last-event-id", empty.id());
    let mut same = again.events(EVENTS).await;
    for _ in 0..3 {
        let beat = same.next().await.unwrap();
        assert_eq!((beat.event(), beat.id()), ("heartbeat", empty.id()));
    }
    drop(same);
    let mut guards = Vec::new();
    for port in 1..=3 {
        let instance = greeter(&format!("g-{port}"), port);
        guards.push(agent.registry.register(instance).await.unwrap());
        let view = async || {
            let service = agent.client().get("/v1/services/greeter").await.expect(200);
            service["instances"].as_array().unwrap().len() == usize::from(port)
        };
        eventually("seen", LONG, view).await;
    }
    let mut missed = again.events(EVENTS).await;
    let (_, before) = with_ids(&mut missed, &["g-1", "g-2", "g-3"]).await;
    assert_eq!(before, 0, "what was missed is one set");
    for other in ["other", "0123.live", &"x".repeat(1000)] {
        let mut other = agent
            .client()
            .with("last-event-id", other)
            .events(EVENTS)
            .await;
        assert_eq!(with_ids(&mut other, &["g-1", "g-2", "g-3"]).await.1, 0);
    }
}

#[tokio::test]
async fn a_reader_resumes_at_another_agent_of_the_same_registry() {
    let memory = Memory::new();
    let registry = memory.connect();
    let _guard = registry.register(greeter("g-1", 1)).await.unwrap();
    let first = TestAgent::start_at(memory.connect(), TestConfig::default()).await;
    let mut stream = first.client().events(EVENTS).await;
    let (seen, _) = with_ids(&mut stream, &["g-1"]).await;
    let config = beating(Duration::from_millis(100));
    let second = TestAgent::start_at(memory.connect(), config).await;
    let client = second.client().with("last-event-id", seen.id());
    let mut stream = client.events(EVENTS).await;
    for _ in 0..3 {
        assert_eq!(stream.next().await.unwrap().event(), "heartbeat");
    }
}

#[tokio::test]
async fn readers_hear_that_the_registry_fails_and_keep_their_set_until_it_is_back() {
    let source = ScriptedInstancer::default();
    source.tell(Ok(Feed::Set(set(1, vec![greeter("g-1", 1)]))));
    let agent = TestAgent::start_at(scripted(&source), TestConfig::default()).await;
    let mut stream = agent.client().events(EVENTS).await;
    let (live, _) = with_ids(&mut stream, &["g-1"]).await;
    source.tell(Err(refusal()));
    source.tell(Err(refusal()));
    let degraded = stream.event().await;
    assert_eq!(degraded.event(), "degraded");
    let told = degraded.json();
    assert_eq!(told["status"], "stale");
    assert_eq!(
        told["error"],
        "etcd: watch: unavailable: connection refused"
    );
    assert_eq!(told.get("instances"), None);
    assert_ne!(degraded.id(), live.id());
    // One that comes now is told the set as it is.
    let mut late = agent.client().events(EVENTS).await;
    let (stale, _) = with_ids(&mut late, &["g-1"]).await;
    assert_eq!(stale.json()["status"], "stale");
    assert_eq!(stale.id(), degraded.id());
    source.tell(Ok(Feed::Set(set(2, vec![greeter("g-1", 1)]))));
    for stream in [&mut stream, &mut late] {
        let back = stream.event().await;
        assert_eq!((back.event(), back.id()), ("resync", live.id()));
        assert_eq!(back.json()["status"], "live");
    }
}

#[tokio::test]
async fn a_reader_of_what_was_never_read_hears_why_and_then_the_set() {
    let source = ScriptedInstancer::default();
    for _ in 0..3 {
        source.answer_opening(Answer::Fail(refusal()));
    }
    source.answer_opening(Answer::SucceedAfter(Duration::from_millis(500)));
    let agent = TestAgent::start_at(scripted(&source), TestConfig::default()).await;
    let mut stream = agent.client().events(EVENTS).await;
    let degraded = stream.event().await;
    assert_eq!(degraded.event(), "degraded");
    assert_eq!(degraded.id, None);
    assert_eq!(degraded.json()["status"], "initializing");
    source.tell(Ok(Feed::Set(set(1, vec![greeter("g-1", 1)]))));
    assert_eq!(with_ids(&mut stream, &["g-1"]).await.1, 0);
}

/// The reference system's case of an agent that stops while streams are open, which it does not survive.
#[tokio::test]
async fn streams_end_as_soon_as_the_agent_stops_and_say_so_first() {
    let agent = TestAgent::start().await;
    let mut service = agent.client().events(EVENTS).await;
    service.event_named("snapshot").await;
    let mut watch = agent.client().events("/watch").await;
    watch.event_named("connected").await;
    agent.lifecycle.send_replace(Lifecycle::Stopping);
    for stream in [&mut service, &mut watch] {
        let last = stream.event().await;
        assert_eq!(last.event(), "disconnected");
        assert_eq!(stream.next().await, None);
    }
    for path in [EVENTS, "/watch"] {
        refused(&agent.client().get(path).await, 503, "stopping");
    }
}

#[tokio::test]
async fn streams_of_services_end_when_the_registry_is_closed() {
    let agent = TestAgent::start().await;
    let mut stream = agent.client().events(EVENTS).await;
    stream.event_named("snapshot").await;
    agent.registry.close().await.unwrap();
    stream.event_named("disconnected").await;
    assert_eq!(stream.next().await, None);
}

/// The reference system's stream, as its documentation has it.
#[tokio::test]
async fn the_agents_own_stream_connects_beats_and_tells_of_trouble() {
    let config = beating(Duration::from_millis(200));
    let agent = TestAgent::start_at(Memory::new().connect(), config).await;
    let mut stream = agent.client().events("/watch").await;
    assert_eq!(stream.headers["connection"], "keep-alive");
    let connected = stream.next().await.unwrap();
    assert_eq!((connected.id(), connected.event()), ("1", "connected"));
    let mut payload = connected.json();
    humantime::parse_rfc3339(payload["generated_at"].take().as_str().unwrap()).unwrap();
    assert_eq!(
        payload,
        json!({
            "event": "connected", "message": "watch stream established", "service": "sidecar-agent", "status": "ready",
            "lifecycle_state": "running", "ready": true, "generated_at": Value::Null,
        })
    );
    let beat = stream.next().await.unwrap();
    assert_eq!((beat.id(), beat.event()), ("2", "heartbeat"));
    let trouble = Lifecycle::Degraded(["the registry is gone".to_owned()].into());
    agent.lifecycle.send_replace(trouble);
    let degraded = stream.event_named("degraded").await;
    assert_eq!(degraded.json()["message"], "the registry is gone");
    agent.lifecycle.send_replace(Lifecycle::Running);
    let resync = stream.event_named("resync").await;
    drop(stream);
    let again = agent.client().with("last-event-id", resync.id());
    let mut again = again.events("/watch").await;
    let connected = again.next().await.unwrap();
    let next = resync.id().parse::<u64>().unwrap() + 1;
    assert_eq!(
        (connected.id(), connected.event()),
        (next.to_string().as_str(), "connected")
    );
}
