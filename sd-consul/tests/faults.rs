//! What happens when the agent dies, freezes, forgets, is cut off or refuses, through the whole stack and over a real Consul.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::cmp::Ordering;
use std::time::Duration;

use common::faults::OwnAgent;
use common::operator::service_id;
use common::{
    BACK_WITHIN, LONG, TTL, config_at, instance, is_live_with, is_stale, own_server,
    own_server_behind_proxy, own_server_with, registry_at, server, until,
};
use sd_consul::ConsulConfig;
use sd_core::{ErrorKind, RegistrationEvent};
use sd_testing::faults::{self, FaultFixture, Stage};
use sd_testing::{Fault, HttpProxy, HttpRule};
use server_programs::LocalServer;
use tokio::time::{Instant, sleep, timeout};

async fn stage(url: &str, time_to_live: Duration) -> Stage {
    Stage::open(registry_at(url), time_to_live).await
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn killed_and_restarted_with_its_data_nothing_flaps() {
    faults::killed_and_restarted_with_its_data_nothing_flaps(OwnAgent::start().await).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn restarted_without_its_data_everything_is_there_again() {
    let agent = OwnAgent::start().await;
    let [before, after] = faults::restarted_without_its_data_everything_is_there_again(agent).await;
    // The server counts from the beginning. Within one history no reader sees that.
    assert_ne!(after.partial_cmp(&before), Some(Ordering::Less));
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn while_everything_is_refused_nothing_is_given_up() {
    let agent = OwnAgent::start().await;
    let refusing = HttpProxy::start(agent.address()).await.unwrap();
    refusing.set_rules([
        HttpRule::new("GET", "/v1/health").answer(400, "Bad Request"),
        HttpRule::new("PUT", "/v1/agent/check/pass").answer(404, "404 page not found"),
        HttpRule::new("PUT", "/").answer(413, "Request Entity Too Large"),
        HttpRule::new("", "/").answer(501, "Not Implemented"),
    ]);
    faults::while_everything_is_refused_nothing_is_given_up(agent, refusing.address()).await;
}

/// It goes through its history then, and answers with what was there once until it has confirmed that it leads.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn what_is_gone_does_not_come_back_while_a_server_that_was_killed_starts() {
    const GONE: u16 = 40;
    // So that the way through history takes a while: each is 64 keys of some hundred bytes.
    const WRITES: usize = 400;
    const READERS: usize = 16;
    let mut server = own_server().await;
    let registry = registry_at(&server.program().url());
    let service = common::service();
    let lives = instance(&service, 1);
    let _lives = registry.register(lives.clone()).ttl(LONG).await.unwrap();
    let mut gone = Vec::new();
    for port in 100..100 + GONE {
        let registered = registry.register(instance(&service, port)).ttl(LONG).await;
        gone.push(registered.unwrap());
    }
    let key = |nth| {
        let value = "eHh4".repeat(100);
        serde_json::json!({"KV": {"Verb": "set", "Key": format!("history/{nth}"), "Value": value}})
    };
    let keys: Vec<_> = (0..64).map(key).collect();
    let keys = serde_json::to_string(&keys).unwrap();
    let operator = common::Operator::at(&server.program().url());
    for _ in 0..WRITES {
        operator.put("/v1/txn", &keys).await;
    }
    for one in gone {
        one.deregister().await.unwrap();
    }
    let url = server.program().url();
    let confirmed_listing = format!("/v1/health/service/{service}?consistent");
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut seen = registry_at(&url).subscribe(&service).unwrap();
        until(&mut seen, "what lives", is_live_with(1)).await;
        let id = lives.id().clone();
        readers.push(tokio::spawn(async move {
            loop {
                let state = seen.changed().await.unwrap();
                let ids = state.snapshot().instances().iter();
                let ids: Vec<_> = ids.map(|one| one.id()).collect();
                assert_eq!(ids, [&id], "{:?}", state.status());
            }
        }));
    }
    for _ in 0..3 {
        server.kill().unwrap();
        server.restart().await.unwrap();
        // From then on it has caught up with its history.
        let confirmed = async {
            while operator.read(&confirmed_listing).await.0 != 200 {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, confirmed).await.unwrap();
        let mut seen = registry_at(&url).subscribe(&service).unwrap();
        until(&mut seen, "what lives", is_live_with(1)).await;
    }
    for reader in readers {
        assert!(!reader.is_finished(), "{:?}", reader.await);
        reader.abort();
    }
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
    stage.told("at_risk").await;
    agent.restart_empty().await.unwrap();
    let since = Instant::now();
    stage.told("lost").await;
    stage.told("registered").await;
    assert!(since.elapsed() < BACK_WITHIN, "{:?}", since.elapsed());
    stage.is_live().await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn frozen_for_longer_than_the_ttl_the_registration_is_back_soon() {
    faults::frozen_for_longer_than_the_ttl_the_registration_is_back_soon(OwnAgent::start().await)
        .await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn cut_off_for_less_than_the_ttl_nothing_flaps() {
    faults::cut_off_for_less_than_the_ttl_nothing_flaps(OwnAgent::start().await).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn in_a_black_hole_for_longer_than_the_ttl_the_registration_is_back_soon() {
    faults::in_a_black_hole_for_longer_than_the_ttl_the_registration_is_back_soon(
        OwnAgent::start().await,
    )
    .await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_agent_whose_answers_are_held_back_is_found_out() {
    faults::a_server_whose_answers_are_held_back_is_found_out(OwnAgent::start().await).await;
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
    assert_eq!(stage.goes_stale().await, ErrorKind::Unavailable);
    // It is never taken for an empty service, whatever the agent says.
    for _ in 0..20 {
        sleep(Duration::from_millis(200)).await;
        assert_eq!(stage.seen.state().snapshot().len(), 1);
    }
    server.restart().await.unwrap();
    stage.is_live().await;
}

/// The agent reads a service again after such a stop, and has an empty view of it until then.
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
async fn a_registry_that_is_down_at_the_start_delays_no_caller() {
    faults::a_registry_that_is_down_at_the_start_delays_no_caller(OwnAgent::start().await).await;
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
    let mut stage = Stage::open(registry, TTL * 5).await;
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
    faults::dropping_everything_leaves_nothing(OwnAgent::start().await).await;
}

/// The running agent behind a proxy that answers for it, and one instance registered and seen.
async fn refusing() -> (HttpProxy, Stage) {
    let target = server();
    let target = target.strip_prefix("http://").unwrap().parse().unwrap();
    let proxy = HttpProxy::start(target).await.unwrap();
    let registry = sd_consul::connect(config_at(&proxy.url())).unwrap();
    (proxy, Stage::open(registry, TTL * 5).await)
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
        // On a busy machine a request may time out first.
        let told = format!("stale because of {status} {body}");
        let seen = until(&mut stage.seen, &told, |state| {
            is_stale(state) && state.status().error().is_some_and(|e| e.kind() == kind)
        });
        assert_eq!(seen.await.snapshot().len(), 1);
        let events = stage.told("at_risk").await;
        let Some(RegistrationEvent::AtRisk(error)) = events.last() else {
            panic!("{events:?}");
        };
        assert_eq!(error.kind(), kind, "{status} {body}");
        proxy.set_rules([]);
        stage.told("recovered").await;
        stage.is_live().await;
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
        // The query that waits now, the emptied answer to the next one, and what is then read again.
        let reads = |requests: &[sd_testing::HttpRequest]| {
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
        stage.is_live().await;
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
    let emptied = |requests: &[sd_testing::HttpRequest]| {
        let served = requests.iter().filter(|one| one.query.contains("index="));
        served.count() > 5
    };
    timeout(LONG, proxy.seen(emptied)).await.unwrap();
    let read = stage.seen.state();
    assert_eq!((read.snapshot().len(), read.status().as_str()), (1, "live"));
    proxy.set_rules([]);
    stage.guard.deregister().await.unwrap();
}

/// Each renewal of a lost record says so, also when only the agent knows.
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
    stage.told("lost").await;
    stage.told("registered").await;
    stage.guard.deregister().await.unwrap();
}
