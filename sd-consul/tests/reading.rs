//! What readers see of Consul, over running agents: health, filters, datacenters, age.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;

use common::operator::plain_id;
use common::{
    LONG, Operator, TTL, config_at, eventually, instance, is_live_with, own_server_with,
    registry_at, server, service, until,
};
use futures_util::FutureExt;
use sd_consul::{Consistency, ConsulBackend, ConsulConfig};
use sd_core::clock::TokioClock;
use sd_core::combine::Merge;
use sd_core::{Discovery, ErrorKind, Instancer, RegistryConfig, ServiceName, Snapshot, Status};
use sd_testing::{HttpProxy, HttpRule};
use server_programs::{Consul, LocalServer};
use tokio::time::timeout;

const PASSING: &str = r#","Address":"10.0.0.2","Port":1,"Check":{"TTL":"300s","Status":"passing"}"#;

fn backend(config: ConsulConfig) -> Arc<ConsulBackend> {
    Arc::new(ConsulBackend::new(config).unwrap())
}

fn ids(set: &Snapshot) -> Vec<&str> {
    let ids = set.instances().iter();
    ids.map(|instance| instance.id().as_str()).collect()
}

/// The agent in front of which a proxy can answer.
async fn behind_http_proxy() -> (HttpProxy, ConsulConfig) {
    let target = server();
    let target = target.strip_prefix("http://").unwrap().parse().unwrap();
    let proxy = HttpProxy::start(target).await.unwrap();
    let config = config_at(&proxy.url());
    (proxy, config)
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn only_instances_that_are_well_are_read_and_warnings_when_they_are_wanted() {
    let (service, operator) = (service(), Operator::at(&server()));
    for (id, status) in [("good", "passing"), ("odd", "warning"), ("bad", "critical")] {
        let rest = PASSING.replace("passing", status);
        operator.register(&service, id, &rest).await;
    }
    let strict = backend(config_at(&server()));
    let tolerant = backend(config_at(&server()).with_warnings(true));
    let found = strict.list(&service).await.unwrap();
    assert_eq!(found.len(), 1);
    assert!(ids(&found)[0].starts_with("good-of-"), "{found:?}");
    assert_eq!(tolerant.list(&service).await.unwrap().len(), 2);

    let registry = registry_at(&server());
    let mut seen = registry.subscribe(&service).unwrap();
    until(&mut seen, "the good one", is_live_with(1)).await;
    operator
        .put(
            &format!("/v1/agent/check/pass/service:{}", plain_id(&service, "bad")),
            "",
        )
        .await;
    until(&mut seen, "another one recovered", is_live_with(2)).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn maintenance_by_an_operator_makes_an_instance_unready_and_ends_nothing() {
    let (service, operator) = (service(), Operator::at(&server()));
    let registry = registry_at(&server());
    let guard = registry.register(instance(&service, 1)).await.unwrap();
    let mut seen = registry.subscribe(&service).unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    let id = common::operator::service_id(guard.record_id());
    let maintenance = |on: bool| {
        let target = format!("/v1/agent/service/maintenance/{id}?enable={on}&reason=night");
        let operator = operator.clone();
        async move { operator.put(&target, "").await }
    };
    let is_ready = |ready: bool| {
        move |state: &sd_core::State| {
            let [instance] = state.snapshot().instances() else {
                return false;
            };
            instance.is_ready() == ready
        }
    };
    maintenance(true).await;
    until(&mut seen, "unready", is_ready(false)).await;
    // What the owner changes meanwhile does not end it.
    guard
        .update(|instance| instance.with_weight(7))
        .await
        .unwrap();
    let state = until(&mut seen, "changed", |state| {
        state.snapshot().instances()[0].weight() == 7
    })
    .await;
    assert!(is_ready(false)(&state));
    maintenance(false).await;
    until(&mut seen, "ready again", is_ready(true)).await;
    guard.deregister().await.unwrap();
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn one_that_is_not_ready_is_so_again_after_an_operator_ended_its_maintenance() {
    let (service, operator) = (service(), Operator::at(&server()));
    let registry = registry_at(&server());
    let unready = instance(&service, 1).with_ready(false);
    let guard = registry.register(unready).ttl(TTL).await.unwrap();
    let id = common::operator::service_id(guard.record_id());
    let target = format!("/v1/agent/service/maintenance/{id}?enable=false");
    operator.put(&target, "").await;
    eventually("in maintenance again", LONG, async || {
        let checks = operator.get("/v1/agent/checks").await;
        checks.get(format!("_service_maintenance:{id}")).is_some()
    })
    .await;
    guard.deregister().await.unwrap();
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn tags_and_filters_are_the_servers_and_a_bad_filter_is_a_lasting_error() {
    let (service, operator) = (service(), Operator::at(&server()));
    for (id, tags) in [
        ("a", r#"["blue","x\"y"]"#),
        ("b", r#"["blue"]"#),
        ("c", "[]"),
    ] {
        let rest = format!(r#"{PASSING},"Tags":{tags},"Meta":{{"team":"{id}"}}"#);
        operator.register(&service, id, &rest).await;
    }
    let count = async |config: ConsulConfig| backend(config).list(&service).await.unwrap().len();
    let config = || config_at(&server());
    assert_eq!(count(config().with_tag("blue")).await, 2);
    assert_eq!(count(config().with_tag("blue").with_tag("x\"y")).await, 1);
    let teams = config().with_filter("Service.Meta.team == \"a\" or Service.Meta.team == \"c\"");
    assert_eq!(count(teams.clone()).await, 2);
    assert_eq!(count(teams.with_tag("blue")).await, 1);
    assert_eq!(count(config().with_nearest("_agent", 2)).await, 2);

    let bad = sd_consul::connect(config().with_filter("Service.Nonsense ==")).unwrap();
    let mut seen = bad.subscribe(&service).unwrap();
    let state = until(&mut seen, "refused", |state| {
        state.status().error().is_some()
    })
    .await;
    assert_eq!(state.status().error().unwrap().kind(), ErrorKind::Rejected);
}

/// Everybody may look at the same service; Consul is asked once.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn one_query_waits_for_a_service_however_many_subscribe() {
    let (service, (proxy, config)) = (service(), behind_http_proxy().await);
    let registry = sd_consul::connect(config).unwrap();
    let mut all: Vec<_> = (0..50)
        .map(|_| registry.subscribe(&service).unwrap())
        .collect();
    for seen in &mut all {
        until(seen, "read", is_live_with(0)).await;
    }
    let waiting = |requests: &[sd_testing::HttpRequest]| {
        let waits = requests
            .iter()
            .filter(|request| request.query.contains("index="));
        waits.count()
    };
    let requests = timeout(LONG, proxy.seen(|requests| waiting(requests) > 0))
        .await
        .unwrap();
    assert_eq!((requests.len(), waiting(&requests)), (2, 1), "{requests:?}");
}

/// Consul wakes every query that waits for a service when anything is written to it.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_wake_up_without_a_change_publishes_nothing() {
    let (service, operator) = (service(), Operator::at(&server()));
    operator.register(&service, "a", PASSING).await;
    let (proxy, config) = behind_http_proxy().await;
    let registry = sd_consul::connect(config.with_wait(LONG)).unwrap();
    let mut seen = registry.subscribe(&service).unwrap();
    let before = until(&mut seen, "there", is_live_with(1)).await;
    let waits_from = |requests: &[sd_testing::HttpRequest]| {
        let waits = requests.iter().rev();
        let mut indices = waits.filter_map(|one| {
            let (_, index) = one.query.split_once("index=")?;
            index.split('&').next()?.parse::<u64>().ok()
        });
        indices.next().unwrap_or(0)
    };
    let first = timeout(LONG, proxy.seen(|requests| waits_from(requests) > 0));
    let first = waits_from(&first.await.unwrap());
    // It means nothing to us.
    let rest = format!(r#"{PASSING},"EnableTagOverride":true"#);
    operator.register(&service, "a", &rest).await;
    let woken = timeout(LONG, proxy.seen(|requests| waits_from(requests) > first));
    woken.await.unwrap();
    assert!(seen.changed().now_or_never().is_none());
    let after = seen.state();
    let [before, after] = [&before, &after].map(|state| &state.snapshot().instances()[0]);
    assert!(Arc::ptr_eq(before, after));
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_answer_that_is_too_old_is_served_and_shows_as_stale() {
    let (service, operator) = (service(), Operator::at(&server()));
    operator.register(&service, "a", PASSING).await;
    let (proxy, config) = behind_http_proxy().await;
    let config = config.with_consistency(Consistency::Stale);
    let rule = || HttpRule::new("GET", "/v1/health");
    proxy.set_rules([rule().header("X-Consul-LastContact", "3600000")]);
    let clock = RegistryConfig::default().with_clock(Arc::new(TokioClock));
    let registry = sd_consul::connect_with(config, clock).unwrap();
    let mut seen = registry.subscribe(&service).unwrap();
    let state = until(&mut seen, "stale", |state| state.snapshot().len() == 1).await;
    let Status::Stale { error, .. } = state.status() else {
        panic!("{state:?}");
    };
    assert!(
        error.report().to_string().contains("max_stale"),
        "{error:?}"
    );
    assert!(seen.dump().age_seconds >= 3600.0, "{:?}", seen.dump());

    proxy.set_rules([rule().header("X-Consul-KnownLeader", "false")]);
    until(&mut seen, "without a leader", |state| {
        state
            .status()
            .error()
            .is_some_and(|error| error.report().to_string().contains("leader"))
    })
    .await;
    proxy.set_rules([]);
    until(&mut seen, "live", is_live_with(1)).await;
}

/// Each is answered by the servers, not by the stream that an agent keeps, which says nothing of its age.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn every_consistency_follows_changes() {
    let operator = Operator::at(&server());
    for consistency in [
        Consistency::Stale,
        Consistency::Consistent,
        Consistency::Cached,
    ] {
        let service = service();
        let (proxy, config) = behind_http_proxy().await;
        let registry = sd_consul::connect(config.with_consistency(consistency)).unwrap();
        let mut seen = registry.subscribe(&service).unwrap();
        until(&mut seen, "empty", is_live_with(0)).await;
        operator.register(&service, "a", PASSING).await;
        let state = until(&mut seen, "there", is_live_with(1)).await;
        assert!(state.snapshot().withdrawn().is_empty());
        operator.deregister(&service, "a").await;
        until(&mut seen, "gone", is_live_with(0)).await;
        assert!(
            proxy
                .requests()
                .iter()
                .all(|request| request.query.contains("near=_agent"))
        );
    }
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn zone_and_address_of_the_node_stand_in_for_those_of_a_service() {
    let server =
        own_server_with(|program| program.with_config(r#"node_meta { az = "eu-1" }"#)).await;
    let url = server.program().url();
    let (service, operator) = (service(), Operator::at(&url));
    operator.register(&service, "plain", r#","Port":80"#).await;
    let tagged = r#","Port":81,"Address":"2001:db8::7","Tags":["zone=eu-2"],"Weights":{"Passing":5,"Warning":1}"#;
    operator.register(&service, "tagged", tagged).await;
    let config = config_at(&url)
        .with_zone_from_node_meta("az")
        .with_zone_from_tag("zone=");
    let found = backend(config).list(&service).await.unwrap();
    let seen: Vec<_> = found
        .instances()
        .iter()
        .map(|one| {
            (
                one.endpoint().to_string(),
                one.zone().unwrap(),
                one.weight(),
            )
        })
        .collect();
    let expected = [
        ("127.0.0.1:80".to_owned(), "eu-1", 1),
        ("[2001:db8::7]:81".to_owned(), "eu-2", 5),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn several_datacenters_are_one_set() {
    let here = own_server_with(|program| program.in_datacenter("here", &[])).await;
    let there: Consul = here.program().clone();
    let there = own_server_with(|program| program.in_datacenter("there", &[&there])).await;
    let service = service();
    for server in [&here, &there] {
        let id = if server.program().url() == here.program().url() {
            "h"
        } else {
            "t"
        };
        Operator::at(&server.program().url())
            .register(&service, id, PASSING)
            .await;
    }
    let url = here.program().url();
    let of = |dc: &str| backend(config_at(&url).with_datacenter(dc));
    let far = of("there");
    eventually("both know each other", LONG, async || {
        far.list(&service).await.is_ok()
    })
    .await;
    assert_eq!(
        ids(&far.list(&service).await.unwrap()),
        [format!(
            "{}@{}",
            plain_id(&service, "t"),
            there.program().node()
        )]
    );
    let both: Arc<dyn Instancer> = Arc::new(Merge::new("here", of("here")).and("there", far));
    let mut seen = both.subscribe(&service).unwrap();
    until(&mut seen, "both", is_live_with(2)).await;
    let nowhere = of("nowhere").list(&service).await.unwrap_err();
    assert!(
        nowhere.report().to_string().contains("nowhere")
            || nowhere.kind() == ErrorKind::Unavailable
    );
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_instance_without_a_port_is_skipped_until_it_has_one() {
    let (service, operator) = (service(), Operator::at(&server()));
    operator.register(&service, "a", PASSING).await;
    operator.register(&service, "b", "").await;
    let registry = registry_at(&server());
    let mut seen = registry.subscribe(&service).unwrap();
    let state = until(&mut seen, "one", is_live_with(1)).await;
    let [skipped] = state.snapshot().skipped() else {
        panic!("{state:?}");
    };
    assert!(
        skipped.key.starts_with("b-of-") && skipped.reason.contains("port"),
        "{skipped:?}"
    );
    operator.register(&service, "b", r#","Port":7"#).await;
    let state = until(&mut seen, "mended", is_live_with(2)).await;
    assert!(state.snapshot().skipped().is_empty());
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn services_of_other_systems_are_listed_and_names_that_none_may_have_left_out() {
    let (service, operator) = (service(), Operator::at(&server()));
    operator.register(&service, "a", PASSING).await;
    let odd = format!("{service}/odd");
    let long = format!("{service}{}", "x".repeat(ServiceName::MAX_BYTES));
    for name in [&odd, &long] {
        let body = format!(r#"{{"Name":"{name}"{PASSING}}}"#);
        operator.put("/v1/agent/service/register", &body).await;
    }
    let listed: Vec<ServiceName> = backend(config_at(&server())).services().await.unwrap();
    assert!(listed.contains(&service) && listed.is_sorted());
    assert!(listed.iter().any(|name| name.as_str() == odd));
    assert!(!listed.iter().any(|name| name.as_str().ends_with("xx")));
}
