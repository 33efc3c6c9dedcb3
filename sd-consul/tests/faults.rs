//! What happens when the agent dies, freezes, forgets, is cut off or refuses, through the whole stack and over a real Consul.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::cmp::Ordering;
use std::time::Duration;

use common::operator::service_id;
use common::{
    BACK_WITHIN, LONG, Operator, TTL, config_at, event, eventually, instance, is_live_with,
    is_stale, own_server, own_server_behind_proxy, own_server_with, registry_at, server, service,
    ttl, until,
};
use sd_consul::ConsulConfig;
use sd_core::testing::{ConsulServer, Direction, Fault, HttpProxy, HttpRule};
use sd_core::{
    ErrorKind, RegistrationEvent, RegistrationGuard, Registry, ServiceName, Subscription,
};
use tokio::time::{Instant, sleep, timeout};

/// One instance registered, and a reader that has seen it.
struct Stage {
    service: ServiceName,
    registry: Registry,
    guard: RegistrationGuard,
    seen: Subscription,
}

async fn stage(url: &str, time_to_live: Duration) -> Stage {
    stage_of(registry_at(url), time_to_live).await
}

async fn stage_of(registry: Registry, time_to_live: Duration) -> Stage {
    let service = service();
    let one = instance(&service, 1);
    let mut guard = registry
        .register_with(one, ttl(time_to_live))
        .await
        .unwrap();
    event(&mut guard, "registered").await;
    let mut seen = registry.subscribe(&service).unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    Stage {
        service,
        registry,
        guard,
        seen,
    }
}

/// The reader says why it is stale and keeps the last set.
async fn goes_stale(seen: &mut Subscription) -> ErrorKind {
    let state = until(seen, "stale", is_stale).await;
    assert_eq!(state.snapshot().len(), 1);
    let error = state.status().error().unwrap();
    assert!(!error.report().to_string().is_empty());
    error.kind()
}

/// The record is in the catalog again soon, and the reader right by itself.
async fn comes_back(server: &ConsulServer, stage: &mut Stage, since: Instant) {
    let operator = Operator::at(&server.program().url());
    eventually("registered again", LONG, async || {
        operator.passing(&stage.service).await.len() == 1
    })
    .await;
    let took = since.elapsed();
    assert!(took < BACK_WITHIN, "registered again after {took:?}");
    until(&mut stage.seen, "right again", is_live_with(1)).await;
}

/// When the record was last written, its check included.
async fn written(server: &ConsulServer, service: &ServiceName) -> (u64, u64) {
    let operator = Operator::at(&server.program().url());
    let entry = operator.entries(service).await.remove(0);
    let mut checks = entry["Checks"].as_array().unwrap().iter();
    let check = checks.find(|check| check["ServiceID"] != "").unwrap();
    let index = |value: &serde_json::Value| value["ModifyIndex"].as_u64().unwrap();
    (index(&entry["Service"]), index(check))
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn killed_and_restarted_with_its_data_nothing_flaps() {
    let mut server = own_server().await;
    let mut stage = stage(&server.program().url(), TTL * 5).await;
    let before = written(&server, &stage.service).await;

    server.kill().unwrap();
    goes_stale(&mut stage.seen).await;
    event(&mut stage.guard, "at_risk").await;
    server.restart().await.unwrap();

    let events = event(&mut stage.guard, "recovered").await;
    assert_eq!(events.len(), 1, "{events:?}");
    until(&mut stage.seen, "live", is_live_with(1)).await;
    assert_eq!(written(&server, &stage.service).await, before);
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn restarted_without_its_data_everything_is_there_again() {
    let mut server = own_server().await;
    let mut stage = stage(&server.program().url(), TTL).await;
    let known = stage.seen.state().snapshot().revision().clone();

    server.kill().unwrap();
    goes_stale(&mut stage.seen).await;
    server.restart_empty().await.unwrap();
    comes_back(&server, &mut stage, Instant::now()).await;
    // The server counts from the beginning. Within one history no reader sees that.
    let now = stage.seen.state().snapshot().revision().clone();
    assert_ne!(now.partial_cmp(&known), Some(Ordering::Less));
}

/// The catalog goes on; the agent forgets what it registered, and removes it there.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_agent_that_forgot_its_services_is_told_again() {
    let server = own_server().await;
    let program = server.program().clone();
    let mut agent = own_server_with(|mine| mine.client_of(&program)).await;
    let mut stage = stage(&agent.program().url(), TTL).await;
    agent.kill().unwrap();
    event(&mut stage.guard, "at_risk").await;
    agent.restart_empty().await.unwrap();
    let since = Instant::now();
    event(&mut stage.guard, "lost").await;
    event(&mut stage.guard, "registered").await;
    assert!(since.elapsed() < BACK_WITHIN, "{:?}", since.elapsed());
    until(&mut stage.seen, "right again", is_live_with(1)).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn frozen_for_longer_than_the_ttl_the_registration_is_back_soon() {
    let server = own_server().await;
    let mut stage = stage(&server.program().url(), TTL).await;

    server.freeze().unwrap();
    goes_stale(&mut stage.seen).await;
    sleep(TTL * 2).await;
    server.thaw().unwrap();
    let since = Instant::now();
    // The agent may first take a renewal and then end the check after all, so only what holds at the end of the time counts.
    sleep(BACK_WITHIN).await;
    comes_back(&server, &mut stage, since + BACK_WITHIN).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn cut_off_for_less_than_the_ttl_nothing_flaps() {
    let (server, proxy, url) = own_server_behind_proxy().await;
    let mut stage = stage(&url, TTL * 5).await;
    let before = written(&server, &stage.service).await;

    proxy.set(Fault::Cut);
    goes_stale(&mut stage.seen).await;
    event(&mut stage.guard, "at_risk").await;
    proxy.set(Fault::Pass);

    event(&mut stage.guard, "recovered").await;
    until(&mut stage.seen, "live", is_live_with(1)).await;
    assert_eq!(written(&server, &stage.service).await, before);
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn in_a_black_hole_for_longer_than_the_ttl_the_registration_is_back_soon() {
    let (server, proxy, url) = own_server_behind_proxy().await;
    let mut stage = stage(&url, TTL).await;

    proxy.set(Fault::BlackHole);
    goes_stale(&mut stage.seen).await;
    let operator = Operator::at(&server.program().url());
    eventually("expired", LONG, async || {
        operator.passing(&stage.service).await.is_empty()
    })
    .await;
    proxy.set(Fault::Pass);
    comes_back(&server, &mut stage, Instant::now()).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_agent_whose_answers_are_held_back_is_found_out() {
    let (_server, proxy, url) = own_server_behind_proxy().await;
    let mut stage = stage(&url, TTL * 5).await;
    proxy.set(Fault::Hold(Direction::ToClient));
    goes_stale(&mut stage.seen).await;
    proxy.set(Fault::Pass);
    until(&mut stage.seen, "live", is_live_with(1)).await;
}

/// An agent without servers answers that there is no leader, and what it has read before as if nothing were wrong.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn without_a_server_that_leads_the_last_set_stays() {
    let mut server = own_server().await;
    let program = server.program().clone();
    let agent = own_server_with(|mine| mine.client_of(&program)).await;
    let mut stage = stage(&agent.program().url(), TTL * 5).await;
    server.kill().unwrap();
    assert_eq!(goes_stale(&mut stage.seen).await, ErrorKind::Unavailable);
    // It is never taken for an empty service, whatever the agent says.
    for _ in 0..20 {
        sleep(Duration::from_millis(200)).await;
        assert_eq!(stage.seen.state().snapshot().len(), 1);
    }
    server.restart().await.unwrap();
    until(&mut stage.seen, "live", is_live_with(1)).await;
}

/// The agent reads a service anew after such a stop, and has an empty view of it until then.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_frozen_server_behind_the_agent_empties_no_set() {
    let server = own_server().await;
    let program = server.program().clone();
    let agent = own_server_with(|mine| mine.client_of(&program)).await;
    let mut stage = stage(&agent.program().url(), TTL * 10).await;
    // A reader that comes while the server is silent begins at a service that the agent does not know yet.
    let other = registry_at(&agent.program().url());
    let _guard = other.register(instance(&stage.service, 2)).await.unwrap();
    until(&mut stage.seen, "both", is_live_with(2)).await;
    server.freeze().unwrap();
    let late = other.subscribe(&stage.service).unwrap();
    for _ in 0..40 {
        sleep(Duration::from_millis(200)).await;
        assert_eq!(stage.seen.state().snapshot().len(), 2);
        let read = late.state();
        assert!(!read.is_known() || read.snapshot().len() == 2, "{read:?}");
    }
    server.thaw().unwrap();
    until(&mut stage.seen, "live", |state| {
        state.status().as_str() == "live"
    })
    .await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_registry_that_is_down_at_the_start_delays_nobody() {
    let mut server = own_server().await;
    server.kill().unwrap();
    let since = Instant::now();
    let service = service();
    let registry = registry_at(&server.program().url());
    let mut seen = registry.subscribe(&service).unwrap();
    let mut guard = registry
        .register_in_background(instance(&service, 1), ttl(TTL))
        .unwrap();
    assert!(since.elapsed() < Duration::from_secs(1));
    let state = until(&mut seen, "explained", |state| {
        state.status().error().is_some()
    })
    .await;
    assert_eq!(state.status().as_str(), "initializing");

    server.restart().await.unwrap();
    let since = Instant::now();
    event(&mut guard, "registered").await;
    assert!(since.elapsed() < BACK_WITHIN, "{:?}", since.elapsed());
    until(&mut seen, "there", is_live_with(1)).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn another_endpoint_is_used_while_the_first_does_not_answer() {
    let (server, proxy, url) = own_server_behind_proxy().await;
    let direct = server.program().url();
    let config = ConsulConfig::new([&url, &direct])
        .with_wait(Duration::from_secs(1))
        .with_request_timeout(Duration::from_secs(1));
    let registry = sd_consul::connect(config).unwrap();
    let mut stage = stage_of(registry, TTL * 5).await;
    for fault in [Fault::Cut, Fault::BlackHole] {
        proxy.set(fault);
        let one = instance(&stage.service, 2);
        let guard = stage.registry.register(one).await.unwrap();
        until(&mut stage.seen, "both", is_live_with(2)).await;
        guard.deregister().await.unwrap();
        until(&mut stage.seen, "one", is_live_with(1)).await;
        proxy.set(Fault::Pass);
    }
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn dropping_everything_leaves_no_service_no_task_and_no_socket() {
    let (server, proxy, url) = own_server_behind_proxy().await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let mut stage = stage(&url, TTL * 10).await;
    // Also after trouble that made us connect again.
    proxy.cut_connections();
    goes_stale(&mut stage.seen).await;
    until(&mut stage.seen, "live", is_live_with(1)).await;
    let Stage {
        service,
        registry,
        guard,
        seen,
    } = stage;
    drop((guard, seen, registry));
    let limit = Duration::from_secs(3);
    let closed = timeout(limit, proxy.counted(|counts| counts.open == 0)).await;
    closed.expect("a socket is left");
    eventually("all tasks ended", limit, async || tasks() == before).await;
    let operator = Operator::at(&server.program().url());
    assert_eq!(
        operator.entries(&service).await,
        [] as [serde_json::Value; 0]
    );
}

/// The running agent behind a proxy that answers for it, and one instance registered and seen.
async fn refusing() -> (HttpProxy, Stage) {
    let target = server();
    let target = target.strip_prefix("http://").unwrap().parse().unwrap();
    let proxy = HttpProxy::start(target).await.unwrap();
    let registry = sd_consul::connect(config_at(&proxy.url())).unwrap();
    (proxy, stage_of(registry, TTL * 5).await)
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn refusals_are_told_as_what_they_are_and_passed_over() {
    let limited = |after| ErrorKind::RateLimited { retry_after: after };
    let second = Some(Duration::from_secs(1));
    for (status, body, header, kind) in [
        (429, "too many requests", Some("1"), limited(second)),
        (
            429,
            "Your IP is issuing too many concurrent connections",
            None,
            limited(None),
        ),
        // Of a gateway. The agent itself answers 429 with JSON for an instance that is not quite well.
        (
            429,
            r#"{"error": "too many requests"}"#,
            None,
            limited(None),
        ),
        (
            503,
            "rate limit exceeded, try again later",
            None,
            limited(None),
        ),
        (500, "No cluster leader", None, ErrorKind::Unavailable),
        (502, "", None, ErrorKind::Unavailable),
        (200, "<html>not Consul</html>", None, ErrorKind::InvalidData),
    ] {
        let (proxy, mut stage) = refusing().await;
        let mut rule = HttpRule::new("", "/v1/").answer(status, body);
        if let Some(after) = header {
            rule = rule.header("Retry-After", after);
        }
        proxy.set_rules([rule]);
        assert_eq!(goes_stale(&mut stage.seen).await, kind, "{status} {body}");
        let events = event(&mut stage.guard, "at_risk").await;
        let Some(RegistrationEvent::AtRisk(error)) = events.last() else {
            panic!("{events:?}");
        };
        assert_eq!(error.kind(), kind, "{status} {body}");
        proxy.set_rules([]);
        event(&mut stage.guard, "recovered").await;
        until(&mut stage.seen, "live", is_live_with(1)).await;
        stage.guard.deregister().await.unwrap();
    }
}

/// What an agent answers that has just lost its view of the service, and one whose servers were set back.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_index_that_goes_back_is_no_news_by_itself() {
    for index in ["0", "1", "2", "nonsense"] {
        let (proxy, mut stage) = refusing().await;
        let rule = HttpRule::new("GET", "/v1/health").answer(200, "[]");
        proxy.set_rules([rule.header("X-Consul-Index", index).times(1)]);
        let asked = proxy.requests().len();
        // The query that waits now, the emptied answer to the next one, and what is then read anew.
        let reads = |requests: &[sd_core::testing::HttpRequest]| {
            let reads = requests[asked..]
                .iter()
                .filter(|request| request.path.contains("/health/service/"));
            reads.count() >= 3
        };
        timeout(LONG, proxy.seen(reads)).await.unwrap();
        sleep(Duration::from_millis(200)).await;
        let read = stage.seen.state();
        assert_eq!(read.snapshot().len(), 1, "index {index}");
        assert!(read.snapshot().held().is_empty(), "index {index}");
        until(&mut stage.seen, "live", is_live_with(1)).await;
        // And it goes on from there.
        let two = stage
            .registry
            .register(instance(&stage.service, 2))
            .await
            .unwrap();
        until(&mut stage.seen, "two", is_live_with(2)).await;
        two.deregister().await.unwrap();
        stage.guard.deregister().await.unwrap();
    }
}

/// After a wait in vain, an agent may answer with the empty view that it is about to fill.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_emptied_answer_at_the_same_index_is_not_believed() {
    let (proxy, stage) = refusing().await;
    let index = stage.seen.state().snapshot().revision().value().to_string();
    let rule = HttpRule::new("GET", "/v1/health").answer(200, "[]");
    proxy.set_rules([rule
        .header("X-Consul-Index", index)
        .delay(Duration::from_millis(50))]);
    let emptied = |requests: &[sd_core::testing::HttpRequest]| {
        let served = requests.iter().filter(|one| one.query.contains("index="));
        served.count() > 5
    };
    timeout(LONG, proxy.seen(emptied)).await.unwrap();
    let read = stage.seen.state();
    assert_eq!((read.snapshot().len(), read.status().as_str()), (1, "live"));
    proxy.set_rules([]);
    stage.guard.deregister().await.unwrap();
}

/// Each renewal of a lost record says so, also when nobody but the agent knows.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_pass_that_is_answered_with_404_registers_again() {
    let (proxy, mut stage) = refusing().await;
    let body = format!(
        "Unknown check ID \"service:{}\"",
        service_id(stage.guard.record_id())
    );
    let rule = HttpRule::new("PUT", "/v1/agent/check/pass").answer(404, body);
    proxy.set_rules([rule.times(1)]);
    event(&mut stage.guard, "lost").await;
    event(&mut stage.guard, "registered").await;
    stage.guard.deregister().await.unwrap();
}
