//! Modules beside each other: configurations, routes, required modules.

#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Cluster, instance, module};
use sd_cluster::{
    ConfigHealth, ENDPOINTS, EndpointDescriptor, Received, RemoteConfig, RoutesReceiver,
    RoutingConfig, TRANSPORT, Transport,
};
use sd_core::sync::lock;
use sd_core::{ErrorKind, RegistrationPhase};
use sd_testing::{LONG, eventually, is_live_with, until};
use serde_json::{Value, json};

#[tokio::test]
async fn a_module_gets_its_default_its_changes_and_the_routes() {
    let cluster = Cluster::start().await;
    let name = module();
    let configs = Arc::<Mutex<Vec<(Value, Option<Value>)>>>::default();
    let noted = Arc::clone(&configs);
    let remote = RemoteConfig::new("{}", move |received: Received<Value>| {
        let previous = received.previous.map(|previous| (*previous).clone());
        lock(&noted).push(((*received.config).clone(), previous));
        async { Ok::<(), String>(()) }
    });
    let routes = Arc::<Mutex<Vec<usize>>>::default();
    let noted = Arc::clone(&routes);
    let receiver = RoutesReceiver::new(move |all: Arc<RoutingConfig>| {
        lock(&noted).push(all.len());
        async { Ok::<(), String>(()) }
    });
    let config = cluster
        .config()
        .with_module(&name)
        .with_remote_config(remote.unwrap())
        .with_routes_receiver(receiver);
    let registry = sd_cluster::connect(config).unwrap();
    let guard = registry.register(instance(&name, 1)).await.unwrap();
    let handle = sd_cluster::module(&registry).unwrap();
    handle.ready().await.unwrap();
    handle.health().check().unwrap();
    let changed = cluster.service.set_config(&name, r#"{"a": 1}"#, None).await;
    changed.unwrap();
    let seen = || async { lock(&configs).len() == 2 };
    eventually("the change", LONG, seen).await;
    let expected = [(json!({}), None), (json!({"a": 1}), Some(json!({})))];
    assert_eq!(*lock(&configs), expected);
    assert_eq!(handle.health().config, ConfigHealth::Applied);
    let told = || async { lock(&routes).last() == Some(&1) };
    eventually("the routes with this module", LONG, told).await;
    guard.deregister().await.unwrap();
    let told = || async { lock(&routes).last() == Some(&0) };
    eventually("the routes without it", LONG, told).await;
    assert_eq!(lock(&routes).first(), Some(&0));
}

#[tokio::test]
async fn a_registration_waits_for_an_instance_of_what_is_required_if_wanted() {
    let cluster = Cluster::start().await;
    let (name, needed) = (module(), module());
    let config = cluster
        .config()
        .with_module(&name)
        .with_required_module(&needed)
        .with_await_required(true)
        .with_handshake_timeout(Duration::from_secs(1));
    let registry = sd_cluster::connect(config).unwrap();
    let refused = registry
        .register(instance(&name, 1))
        .confirm_within(Duration::from_secs(2));
    refused.await.unwrap_err();
    let health = sd_cluster::module(&registry).unwrap().health();
    assert!(health.to_string().contains("has no instance"), "{health}");
    let waiting = registry
        .register(instance(&name, 1))
        .in_background()
        .unwrap();
    let other = cluster.registry();
    let _needed = other.register(instance(&needed, 2)).await.unwrap();
    let is_registered = || async { waiting.phase() == RegistrationPhase::Registered };
    eventually("registered", LONG, is_registered).await;
}

#[tokio::test]
async fn with_routes_readers_see_version_transport_and_endpoints_and_all_modules() {
    let cluster = Cluster::start().await;
    let name = module();
    let config = cluster
        .config()
        .with_module(&name)
        .with_version("1.2.3")
        .with_transport(Transport::Http)
        .with_served(EndpointDescriptor::new("a").with_http_method("GET"));
    let writer = sd_cluster::connect(config).unwrap();
    let _guard = writer.register(instance(&name, 1)).await.unwrap();
    let reader = sd_cluster::connect(cluster.config().with_routes(true)).unwrap();
    let mut seen = reader.subscribe(&name).unwrap();
    let state = until(&mut seen, "one", is_live_with(1)).await;
    let read = &state.instances()[0];
    assert_eq!(read.version(), Some("1.2.3"));
    assert_eq!(read.metadata()[TRANSPORT], "http");
    let served: Vec<EndpointDescriptor> =
        serde_json::from_str(&read.metadata()[ENDPOINTS]).unwrap();
    assert_eq!(served[0].http_method, "GET");
    let listed = reader.services().await.unwrap();
    assert!(listed.iter().any(|service| service.as_str() == name));
    let error = writer.services().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn there_are_no_elections_by_type_and_in_words() {
    let cluster = Cluster::start().await;
    let registry = cluster.registry();
    assert!(Arc::clone(registry.backend()).elector().is_none());
    let error = registry.elector().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.report().to_string().contains("cluster"),
        "{}",
        error.report()
    );
}
