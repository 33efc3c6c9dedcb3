//! What users see while config services are killed, frozen, cut off or half-open.

#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::slow_link::SlowLink;
use common::{Cluster, SILENT, config_at, instance, module};
use sd_cluster::{ClusterConfig, ConfigHealth, Received, RemoteConfig};
use sd_core::{Instance, RegistrationEvent, Registry};
use sd_testing::{
    Direction, Fault, LONG, TcpProxy, event, eventually, is_live_with, is_stale, until,
};
use tokio::time::Instant;

fn registry(config: ClusterConfig) -> Registry {
    sd_cluster::connect(config).unwrap()
}

#[tokio::test]
async fn a_link_that_is_cut_costs_no_reader_its_set_and_a_record_is_soon_there_again() {
    let cluster = Cluster::start().await;
    let proxy = TcpProxy::start(cluster.address).await.unwrap();
    let (module, reader) = (module(), cluster.registry());
    let mut seen = reader.subscribe(&module).unwrap();
    let mut cut = registry(config_at(proxy.address()))
        .subscribe(&module)
        .unwrap();
    let writer = registry(config_at(proxy.address()));
    let mut guard = writer.register(instance(&module, 1)).await.unwrap();
    for seen in [&mut seen, &mut cut] {
        until(seen, "one", is_live_with(1)).await;
    }
    proxy.set(Fault::Cut);
    until(&mut cut, "stale", is_stale).await;
    assert_eq!(cut.state().instances().len(), 1);
    until(&mut seen, "none", is_live_with(0)).await;
    event(&mut guard, "lost").await;
    proxy.set(Fault::Pass);
    for seen in [&mut seen, &mut cut] {
        until(seen, "one again", is_live_with(1)).await;
    }
    guard.deregister().await.unwrap();
    until(&mut seen, "none in the end", is_live_with(0)).await;
}

#[tokio::test]
async fn a_half_open_link_is_given_up_in_time_in_each_direction() {
    for direction in [Direction::ToServer, Direction::ToClient, Direction::Both] {
        let cluster = Cluster::start().await;
        let proxy = TcpProxy::start(cluster.address).await.unwrap();
        let module = module();
        let reader = registry(config_at(proxy.address()));
        let mut seen = reader.subscribe(&module).unwrap();
        let guard = reader.register(instance(&module, 1)).await.unwrap();
        until(&mut seen, "one", is_live_with(1)).await;
        let frozen = Instant::now();
        proxy.set(Fault::Hold(direction));
        until(&mut seen, "stale", is_stale).await;
        assert!(frozen.elapsed() >= SILENT / 2, "{:?}", frozen.elapsed());
        assert_eq!(seen.state().instances().len(), 1);
        let gone = || async { cluster.service.routes().await.unwrap().is_empty() };
        eventually("gone from the service", LONG, gone).await;
        proxy.set(Fault::Pass);
        until(&mut seen, "one again", is_live_with(1)).await;
        drop(guard);
    }
}

#[tokio::test]
async fn what_takes_longer_over_a_slow_link_than_a_peer_may_be_silent_ends_no_session() {
    const BYTES: usize = 2 << 20;
    let cluster = Cluster::start().await;
    // More than twice as long as the silence that ends a connection, in each direction.
    let link = SlowLink::start(cluster.address, 600 << 10);
    let receiver = async |received: Received<serde_json::Value>| {
        assert_eq!(received.config["text"].as_str().map(str::len), Some(BYTES));
        Ok::<(), String>(())
    };
    let default = format!(r#"{{"text":"{}"}}"#, "x".repeat(BYTES));
    let config = config_at(link.address)
        .with_module(module())
        .with_handshake_timeout(Duration::from_secs(60))
        .with_remote_config(RemoteConfig::new(default, receiver).unwrap());
    let began = Instant::now();
    let registry = registry(config);
    let module = sd_cluster::module(&registry).unwrap();
    tokio::time::timeout(2 * LONG, module.ready())
        .await
        .unwrap()
        .unwrap();
    assert!(began.elapsed() > 4 * SILENT, "{:?}", began.elapsed());
    assert_eq!(module.health().config, ConfigHealth::Applied);
    assert_eq!(link.connections(), 1);
}

#[tokio::test]
async fn of_two_services_one_that_is_dead_delays_and_hides_nothing() {
    let cluster = Cluster::start().await;
    // Listens and never answers.
    let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoints = [dead.local_addr().unwrap(), cluster.address].map(|one| one.to_string());
    for _ in 0..4 {
        let module = module();
        let config = ClusterConfig::new(endpoints.clone())
            .with_module("reader")
            .with_connect_timeout(Duration::from_millis(300));
        let registry = registry(config);
        let mut seen = registry.subscribe(&module).unwrap();
        let guard = registry
            .register(instance(&module, 1))
            .in_background()
            .unwrap();
        until(&mut seen, "one", is_live_with(1)).await;
        drop(guard);
    }
}

#[tokio::test]
async fn a_service_that_stops_and_comes_back_empty_has_all_again() {
    let cluster = Cluster::start().await;
    let proxy = TcpProxy::start(cluster.address).await.unwrap();
    let module = module();
    let client = registry(config_at(proxy.address()));
    let mut seen = client.subscribe(&module).unwrap();
    let mut guards = Vec::new();
    for port in 1..=5 {
        guards.push(client.register(instance(&module, port)).await.unwrap());
    }
    until(&mut seen, "five", is_live_with(5)).await;
    proxy.set(Fault::Refuse);
    cluster.service.stop().await;
    until(&mut seen, "stale", is_stale).await;
    let next = Cluster::start().await;
    proxy.set_target(next.address);
    proxy.set(Fault::Pass);
    let mut is_back = [false; 5];
    for (guard, is_back) in guards.iter_mut().zip(&mut is_back) {
        while !*is_back {
            let event = guard.next_event().await.unwrap();
            *is_back = matches!(event, RegistrationEvent::Registered(_));
        }
    }
    until(&mut seen, "five again", is_live_with(5)).await;
}

#[tokio::test]
async fn an_update_has_no_gap_for_readers() {
    let cluster = Cluster::start().await;
    let module = module();
    let reader = registry(cluster.config().with_routes(true));
    let mut seen = reader.subscribe(&module).unwrap();
    let writer = cluster.registry();
    let first = instance(&module, 1).with_version("0");
    let guard = writer.register(first.clone()).await.unwrap();
    until(&mut seen, "one", is_live_with(1)).await;
    let mut watched = seen.clone();
    let updating = async {
        for version in 1..=20 {
            let change = move |instance: Instance| instance.with_version(version.to_string());
            guard.update(change).await.unwrap();
        }
    };
    let watching = async {
        loop {
            let state = watched.state();
            assert_eq!(state.instances().len(), 1, "{state:?}");
            if state.instances()[0].version() == Some("20") {
                return;
            }
            watched.changed().await.unwrap();
        }
    };
    tokio::time::timeout(LONG, async { tokio::join!(updating, watching) })
        .await
        .unwrap();
}
