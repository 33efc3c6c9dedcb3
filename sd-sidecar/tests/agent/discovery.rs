//! What is registered, as requests see it: once, with entity tags, and as long polls.

use std::time::Duration;

use sd_core::memory::Memory;
use sd_core::port::Feed;
use sd_core::{Error, ErrorKind, Instance, Registry, RegistryConfig, SubscriptionConfig};
use sd_sidecar::daemon::lifecycle::Lifecycle;
use sd_testing::{Answer, LONG, ScriptedInstancer, eventually};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::api::refused;
use crate::common::sets::{greeter, set};
use crate::common::{HttpClient, Reply, TestAgent, TestConfig};

const GREETER: &str = "/v1/services/greeter";

fn ids(service: &Value) -> Vec<&str> {
    let instances = service["instances"].as_array().unwrap().iter();
    instances.map(|one| one["id"].as_str().unwrap()).collect()
}

/// Asks until the answer has these instances: a feed is a moment behind what was registered.
async fn with_ids(client: &HttpClient, path: &str, expected: &[&str]) -> Reply {
    let deadline = Instant::now() + LONG;
    loop {
        let reply = client.get(path).await;
        let service = reply.expect(200);
        if ids(&service) == expected {
            return reply;
        }
        assert!(Instant::now() < deadline, "not {expected:?} but {service}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_service_is_shown_as_sdctl_shows_it() {
    let agent = TestAgent::start().await;
    let empty = agent.client().get(GREETER).await.expect(200);
    assert_eq!(ids(&empty), [""; 0]);
    assert_eq!(empty["status"], "live");
    let guard = agent
        .registry
        .register(greeter("g-1", 1).with_zone("a"))
        .await
        .unwrap();
    let reply = with_ids(&agent.client(), GREETER, &["g-1"]).await;
    assert_eq!(reply.header("cache-control"), "no-cache");
    let mut service = reply.json();
    let index = service["index"].take();
    assert_eq!(
        reply.header("etag"),
        format!("W/\"{}\"", index.as_str().unwrap())
    );
    assert!(service["revision"].take().is_u64());
    assert_eq!(
        service,
        json!({
            "service": "greeter", "index": null, "revision": null, "status": "live", "since": null, "error": null,
            "instances": [serde_json::to_value(guard.instance().as_ref()).unwrap()],
            "skipped": [], "skipped_count": 0, "held": [],
        })
    );
}

#[tokio::test]
async fn of_a_service_those_that_are_ready_or_in_a_zone_are_shown() {
    let agent = TestAgent::start().await;
    let client = agent.client();
    let mut guards = Vec::new();
    for instance in [
        greeter("a-1", 1).with_zone("a"),
        greeter("a-2", 2).with_zone("a").with_ready(false),
        greeter("b-1", 3).with_zone("b"),
    ] {
        guards.push(agent.registry.register(instance).await.unwrap());
    }
    with_ids(&client, GREETER, &["a-1", "a-2", "b-1"]).await;
    for (query, expected) in [
        ("ready=true", &["a-1", "b-1"][..]),
        ("ready=", &["a-1", "b-1"]),
        ("ready=false", &["a-2"]),
        ("zone=a", &["a-1", "a-2"]),
        ("zone=b&ready=false", &[]),
    ] {
        with_ids(&client, &format!("{GREETER}?{query}"), expected).await;
    }
    // What is not asked for wakes no one.
    let ready = client.get(&format!("{GREETER}?ready=true")).await;
    let waiting = client.with("if-none-match", ready.header("etag"));
    let path = format!("{GREETER}?ready=true&wait=30s");
    let mut waiting = tokio::spawn(async move { waiting.get(&path).await });
    let unready = greeter("a-3", 4).with_ready(false);
    guards.push(agent.registry.register(unready).await.unwrap());
    with_ids(&client, GREETER, &["a-1", "a-2", "a-3", "b-1"]).await;
    assert!(
        timeout(Duration::from_millis(200), &mut waiting)
            .await
            .is_err()
    );
    guards.push(agent.registry.register(greeter("a-4", 5)).await.unwrap());
    let changed = timeout(LONG, waiting).await.unwrap().unwrap();
    assert_eq!(ids(&changed.expect(200)), ["a-1", "a-4", "b-1"]);
}

#[tokio::test]
async fn what_a_reader_has_already_is_not_sent_again() {
    let agent = TestAgent::start().await;
    let client = agent.client();
    for path in ["/v1/services", GREETER] {
        let first = client.get(path).await;
        first.expect(200);
        let tag = first.header("etag").to_owned();
        for tags in [
            tag.clone(),
            format!("\"other\", {tag}"),
            tag.replace("W/", ""),
            // Whatever there is.
            "*".to_owned(),
        ] {
            let same = client.with("if-none-match", tags).get(path).await;
            assert_eq!(same.status, 304, "{same:?}");
            assert_eq!(same.header("etag"), tag);
            assert!(same.body.is_empty());
        }
        let other = client.with("if-none-match", "\"other\"").get(path).await;
        assert_eq!(other.expect(200), first.json());
    }
}

#[tokio::test]
async fn a_long_poll_is_answered_at_once_when_something_changes() {
    let agent = TestAgent::start().await;
    let client = agent.client();
    let services = client.get("/v1/services").await;
    let index = services.expect(200)["index"].as_str().unwrap().to_owned();
    let list = format!("/v1/services?wait=5m&index={index}");
    let tag = client.get(GREETER).await.header("etag").to_owned();
    let (of_list, of_service) = (client.clone(), client.with("if-none-match", tag));
    let of_list = tokio::spawn(async move { of_list.get(&list).await });
    let of_service = tokio::spawn(async move {
        let path = format!("{GREETER}?wait=5m");
        of_service.get(&path).await
    });
    let _guard = agent.registry.register(greeter("g-1", 1)).await.unwrap();
    let service = timeout(LONG, of_service).await.unwrap().unwrap();
    assert_eq!(ids(&service.expect(200)), ["g-1"]);
    let list = timeout(LONG, of_list).await.unwrap().unwrap().expect(200);
    assert_eq!(list["services"], json!(["greeter"]));
}

#[tokio::test]
async fn a_long_poll_ends_when_its_wait_does_or_the_agent_stops() {
    let agent = TestAgent::start().await;
    let client = agent.client();
    let first = client.get(GREETER).await;
    let index = first.expect(200)["index"].as_str().unwrap().to_owned();
    let begin = Instant::now();
    let by_index = client
        .get(&format!("{GREETER}?wait=300ms&index={index}"))
        .await;
    assert_eq!(by_index.expect(200), first.json());
    let by_tag = client.with("if-none-match", first.header("etag"));
    let by_tag_reply = by_tag.get(&format!("{GREETER}?wait=300ms")).await;
    assert_eq!(by_tag_reply.status, 304);
    assert!(begin.elapsed() >= Duration::from_millis(600));
    let waiting = tokio::spawn(async move { by_tag.get(&format!("{GREETER}?wait=5m")).await });
    agent.lifecycle.send_replace(Lifecycle::Stopping);
    let ended = timeout(LONG, waiting).await.unwrap().unwrap();
    assert!(ended.status == 304 || ended.status == 503, "{ended:?}");
    let late = client
        .get(&format!("{GREETER}?wait=5m&index={index}"))
        .await;
    refused(&late, 503, "stopping");
    assert_eq!(late.header("retry-after"), "1");
}

#[tokio::test]
async fn a_wrong_query_is_told_with_its_field() {
    let agent = TestAgent::start().await;
    for (path, part) in [
        ("/v1/services?wait=soon&index=a", "wait"),
        ("/v1/services?wait=6m&index=a", "wait: at most 5m"),
        ("/v1/services?wait=5s", "wait: say what you have"),
        ("/v1/services?zone=a", "zone"),
        (
            "/v1/services/greeter?ready=yes",
            "ready: write true or false",
        ),
        ("/v1/services/greeter?redy=true", "redy"),
        ("/v1/services/greeter?redy=%1b%5b2J", "redy"),
        (
            "/v1/services/greeter/events?ready=yes",
            "ready: write true or false",
        ),
        (
            "/v1/services/greeter/events?bogus=1",
            "query: bogus: unknown field `bogus`",
        ),
        ("/v1/services/greeter/events?wait=1s", "wait"),
        ("/v1/services/a%0Ab", "control characters"),
        ("/v1/services/%ff", "UTF-8"),
        ("/v1/registrations?servcie=a", "servcie"),
    ] {
        let text = refused(&agent.client().get(path).await, 400, "invalid_request");
        assert!(text.contains(part), "{path}: {text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}

/// A registry over a script, which fails again soon after it has failed.
pub(crate) fn scripted(source: &ScriptedInstancer) -> Registry {
    let (first, cap) = (Duration::from_millis(1), Duration::from_millis(20));
    let subscription = SubscriptionConfig::default().with_backoff(first, cap);
    let config = RegistryConfig::default().with_subscription(subscription);
    Registry::reading_with(std::sync::Arc::new(source.clone()), config)
}

pub(crate) fn refusal() -> Error {
    Error::new(ErrorKind::Unavailable, "etcd: watch").because("connection refused")
}

#[tokio::test]
async fn a_service_that_was_never_read_is_an_error_and_not_empty() {
    let config = TestConfig::with_api(|api| api.first_read_within = Duration::from_millis(300));
    let hanging = ScriptedInstancer::default().with_opening(Answer::Hang);
    let agent = TestAgent::start_at(scripted(&hanging), config.clone()).await;
    let text = refused(
        &agent.client().get(GREETER).await,
        503,
        "registry_unavailable",
    );
    assert_eq!(text, "the registry did not answer within 300ms");
    let refusing = ScriptedInstancer::default();
    refusing.tell(Err(refusal()));
    let agent = TestAgent::start_at(scripted(&refusing), config).await;
    let reply = agent.client().get(GREETER).await;
    let text = refused(&reply, 503, "registry_unavailable");
    assert_eq!(text, "etcd: watch: unavailable: connection refused");
    assert_eq!(reply.header("retry-after"), "1");
}

#[tokio::test]
async fn the_last_good_set_stays_while_the_registry_fails_and_says_so() {
    let source = ScriptedInstancer::default();
    source.tell(Ok(Feed::Set(set(1, vec![greeter("g-1", 1)]))));
    let agent = TestAgent::start_at(scripted(&source), TestConfig::default()).await;
    let client = agent.client();
    let live = client.get(GREETER).await;
    assert_eq!(live.expect(200)["status"], "live");
    let waiting = client.with("if-none-match", live.header("etag"));
    let waiting = tokio::spawn(async move { waiting.get(&format!("{GREETER}?wait=1m")).await });
    source.answer_opening(Answer::Hang);
    source.tell(Err(refusal()));
    let stale = timeout(LONG, waiting).await.unwrap().unwrap().expect(200);
    assert_eq!(stale["status"], "stale");
    assert_eq!(
        stale["error"],
        "etcd: watch: unavailable: connection refused"
    );
    humantime::parse_rfc3339(stale["since"].as_str().unwrap()).unwrap();
    assert_eq!(ids(&stale), ["g-1"]);
    let ready = client.get("/readyz").await.expect(503);
    let reason = "services that the registry does not confirm now: 1, such as greeter";
    assert_eq!(ready["reasons"], json!([reason]));
}

#[tokio::test]
async fn repeated_requests_share_one_feed_and_many_names_open_only_so_many() {
    let config = TestConfig::with_api(|api| api.most_followed = 3);
    let agent = TestAgent::start_at(Memory::new().connect(), config).await;
    let followed = || agent.registry.dump().subscriptions.len();
    for _ in 0..20 {
        agent.client().get(GREETER).await.expect(200);
    }
    assert_eq!(followed(), 1);
    let _stream = agent.client().events(&format!("{GREETER}/events")).await;
    for name in 0..50 {
        let reply = agent.client().get(&format!("/v1/services/s-{name}")).await;
        if name < 2 {
            reply.expect(200);
        } else {
            refused(&reply, 503, "too_many_services");
        }
    }
    assert_eq!(followed(), 3);
    agent.client().get(GREETER).await.expect(200);
}

#[tokio::test]
async fn all_services_are_listed() {
    let agent = TestAgent::start().await;
    let mut guards = Vec::new();
    for name in ["b", "a"] {
        let instance = Instance::new(name, "10.0.0.8:1").unwrap();
        guards.push(agent.registry.register(instance).await.unwrap());
    }
    let listed = async || {
        let list = agent.client().get("/v1/services").await.expect(200);
        list["services"] == json!(["a", "b"]) && list["status"] == "live" && list["unlisted"] == 0
    };
    eventually("listed", LONG, listed).await;
}
