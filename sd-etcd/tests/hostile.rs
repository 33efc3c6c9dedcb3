//! What answers in place of etcd, and not as etcd does, costs the requests that it answers and nothing else.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::election::{Booth, name, ticket};
use common::refusing::Refusing;
use common::{TTL, event, instance, own_server_behind_proxy, prefix, registry_at, until};
use sd_core::{ErrorKind, RegistrationEvent, ServiceName, State};
use sd_testing::is_live_with;
use server_programs::LocalServer;

fn says(state: &State, words: &str) -> bool {
    let error = state.status().error();
    error.is_some_and(|error| error.report().to_string().contains(words))
}

#[tokio::test]
async fn a_status_with_malformed_details_is_an_error_of_its_request() {
    let server = Refusing::with_malformed_details().await;
    let (url, prefix) = (server.url(), prefix());
    let registry = registry_at(&url, &prefix);
    let service = ServiceName::new("greeter").unwrap();
    let error = registry.list(&service).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());

    let mut seen = registry.subscribe(&service).unwrap();
    until(&mut seen, "explained", |state| says(state, "base64")).await;
    let mut guard = registry.register(instance(1)).in_background().unwrap();
    let events = event(&mut guard, "retrying").await;
    let Some(RegistrationEvent::Retrying { error, .. }) = events.last() else {
        panic!("{events:?}");
    };
    assert!(error.report().to_string().contains("base64"), "{error:?}");

    let elector = Booth::at(&url).elector();
    let ticket = ticket("a");
    for refused in [
        elector.safety().await.map(drop),
        elector.join(&ticket).await.map(drop),
        elector.leave(&ticket).await,
        elector.observe(&name()).await.map(drop),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    }
}

/// The client crate panics at each answer meanwhile.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn after_malformed_answers_everything_is_followed_again() {
    let (server, proxy, url) = own_server_behind_proxy().await;
    let registry = registry_at(&url, &prefix());
    let mut guard = registry.register(instance(1)).ttl(TTL).await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;

    let malformed = Refusing::with_malformed_details().await;
    proxy.set_target(malformed.address());
    proxy.cut_connections();
    until(&mut seen, "explained", |state| says(state, "base64")).await;
    event(&mut guard, "at_risk").await;
    proxy.set_target(server.program().address());
    proxy.cut_connections();
    until(&mut seen, "live again", is_live_with(1)).await;
}
