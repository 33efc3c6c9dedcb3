//! Many services and many instances, over Consuls of our own with the limits that Consul has by default.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{
    LONG, Operator, config_at, instance, is_live_with, own_server, own_server_behind_proxy,
    registry_at, service, until,
};
use sd_consul::{ConsulBackend, ConsulConfig};
use sd_core::{Instancer, ServiceName, Subscription};
use serde_json::json;
use server_programs::LocalServer;
use tokio::time::{Instant, sleep, timeout};

/// What an agent allows for each address.
const MOST_CONNECTIONS: usize = 200;

/// Each would keep a connection of its own if it waited as long as it liked.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn five_hundred_services_are_followed_over_the_connections_that_an_agent_allows() {
    const SERVICES: usize = 500;
    let (server, proxy, url) = own_server_behind_proxy().await;
    let registry = sd_consul::connect(ConsulConfig::new([url])).unwrap();
    let names: Vec<ServiceName> = (0..SERVICES).map(|_| service()).collect();
    let mut all: Vec<Subscription> = Vec::new();
    for name in &names {
        all.push(registry.subscribe(name).unwrap());
    }
    for seen in &mut all {
        until(seen, "read", is_live_with(0)).await;
    }
    let writer = registry_at(&server.program().url());
    let mut latencies = Vec::new();
    for number in (0..SERVICES).step_by(SERVICES / 20) {
        let since = Instant::now();
        let guard = writer.register(instance(&names[number], 1)).await.unwrap();
        until(&mut all[number], "seen", is_live_with(1)).await;
        latencies.push(since.elapsed());
        let counts = proxy.counts();
        assert!(counts.open <= MOST_CONNECTIONS, "{counts:?}");
        guard.deregister().await.unwrap();
    }
    let troubled = all
        .iter()
        .filter(|seen| seen.state().status().as_str() != "live");
    assert_eq!(troubled.count(), 0);
    latencies.sort();
    let (median, most) = (
        latencies[latencies.len() / 2],
        latencies[latencies.len() - 1],
    );
    println!("{SERVICES} services: a change is seen after {median:?} (median), {most:?} (most)");
    assert!(most < Duration::from_secs(15), "{latencies:?}");
}

/// Puts instances into the catalog as an operator can, many at a time.
async fn fill(operator: &Operator, service: &ServiceName, from: usize, to: usize) {
    operator
        .put(
            "/v1/catalog/register",
            r#"{"Node":"many","Address":"10.0.0.1"}"#,
        )
        .await;
    let numbers: Vec<usize> = (from..to).collect();
    for some in numbers.chunks(64) {
        let steps = some.iter().map(|number| {
            let id = format!("{service}:i{number}");
            let meta = json!({"sd-incarnation": format!("{number:x}"), "sd-zone": "a", "team": "red"});
            let entry = json!({"ID": id, "Service": service.as_str(), "Address": "10.0.0.1", "Port": 1 + number,
                "Tags": ["blue", "v2"], "Meta": meta});
            json!({"Service": {"Verb": "set", "Node": "many", "Service": entry}})
        });
        let steps: Vec<_> = steps.collect();
        operator.put("/v1/txn", &json!(steps).to_string()).await;
    }
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn ten_thousand_instances_are_one_set_read_in_linear_time() {
    const MOST: usize = 10_000;
    let server = own_server().await;
    let url = server.program().url();
    let (service, operator) = (service(), Operator::at(&url));
    let backend = Arc::new(ConsulBackend::new(config_at(&url).with_request_timeout(LONG)).unwrap());
    let mut took = Vec::new();
    for (from, to) in [(0, MOST / 4), (MOST / 4, MOST)] {
        fill(&operator, &service, from, to).await;
        let mut best = Duration::MAX;
        for _ in 0..3 {
            let since = Instant::now();
            assert_eq!(backend.list(&service).await.unwrap().len(), to);
            best = best.min(since.elapsed());
        }
        took.push(best);
    }
    println!(
        "{} instances: {:?}, {MOST}: {:?}",
        MOST / 4,
        took[0],
        took[1]
    );
    assert!(took[1] < took[0] * 12, "{took:?}");

    let registry = sd_consul::connect(config_at(&url).with_request_timeout(LONG)).unwrap();
    let mut seen = registry.subscribe(&service).unwrap();
    timeout(LONG, until(&mut seen, "read", is_live_with(MOST)))
        .await
        .unwrap();
    let before = seen.state();
    fill(&operator, &service, MOST, MOST + 1).await;
    let since = Instant::now();
    let after = until(&mut seen, "one more", is_live_with(MOST + 1)).await;
    println!("one more is seen after {:?}", since.elapsed());
    // Nothing else has changed, down to the memory.
    let (before, after) = (before.snapshot(), after.snapshot());
    let same = before
        .instances()
        .iter()
        .filter(|one| Arc::ptr_eq(one, after.get(one.id()).unwrap()));
    assert_eq!(same.count(), MOST);
}

/// All of them change all the time, and each reader sees the newest state soon after.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_service_that_changes_all_the_time_is_followed_without_asking_all_the_time() {
    let (server, proxy, url) = own_server_behind_proxy().await;
    let service = service();
    let operator = Operator::at(&server.program().url());
    fill(&operator, &service, 0, 1000).await;
    let registry = sd_consul::connect(config_at(&url)).unwrap();
    let mut seen = registry.subscribe(&service).unwrap();
    until(&mut seen, "read", is_live_with(1000)).await;
    let before = proxy.counts().bytes_to_client;
    let since = Instant::now();
    let mut many = 1000;
    while since.elapsed() < Duration::from_secs(5) {
        fill(&operator, &service, many, many + 1).await;
        many += 1;
        sleep(Duration::from_millis(5)).await;
    }
    until(&mut seen, "all that came", is_live_with(many)).await;
    let read = proxy.counts().bytes_to_client - before;
    let seconds = since.elapsed().as_secs();
    println!(
        "{} changes in {seconds} s: {} MiB read",
        many - 1000,
        read >> 20
    );
    // Its pace, two at once at the beginning, and the last one.
    let allowed = (seconds + 3) * 8 * 1024 * 1024;
    assert!(read < allowed, "{read} bytes in {seconds} s");
}
