//! A process that may open hardly any files, over a running Consul.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{LONG, eventually, instance, registry_at, server, service};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_core::{Status, Subscription};

/// More services than connections that this process may have.
const SERVICES: usize = 100;

/// Each query that waits keeps a connection: without turns, the first ones would keep all that there are.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn more_services_than_descriptors_are_followed_in_turns() {
    let few = Rlimit {
        current: Some(64),
        ..getrlimit(Resource::Nofile)
    };
    setrlimit(Resource::Nofile, few).unwrap();
    let registry = registry_at(&server());
    let service_of_ours = service();
    let registering = registry.register(instance(&service_of_ours, 1));
    let guard = registering.await.unwrap();
    let subscriptions: Vec<Subscription> = (0..SERVICES)
        .map(|_| registry.subscribe(service()).unwrap())
        .collect();
    let is_live = |one: &Subscription| matches!(one.state().status(), Status::Live);
    eventually("live", LONG, async || subscriptions.iter().all(is_live)).await;
    guard.update(|one| one.with_weight(7)).await.unwrap();
    let own = registry.subscribe(&service_of_ours).unwrap();
    let state = own.wait_until_ready(LONG).await.unwrap();
    assert_eq!(state.instances()[0].weight(), 7);
    guard.deregister().await.unwrap();
}
