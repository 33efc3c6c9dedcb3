//! Side by side with go-kit's consul package: its entries are read, and ours are where it looks.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{Operator, instance, is_live_with, registry_at, server, service, until};
use sd_core::ServiceName;
use serde_json::Value;

/// The addresses that go-kit's Instancer has: the entries that pass, with the first tag filtered by the server and the others by
/// itself, the service's address or that of the node.
async fn as_go_kit_reads(operator: &Operator, service: &ServiceName, tags: &[&str]) -> Vec<String> {
    let tag = tags
        .first()
        .map_or(String::new(), |tag| format!("&tag={tag}"));
    let target = format!("/v1/health/service/{service}?passing=1{tag}");
    let found = operator.get(&target).await;
    let has_all = |entry: &&Value| {
        let found = entry["Service"]["Tags"].as_array().unwrap();
        tags.iter()
            .all(|tag| found.iter().any(|found| found == tag))
    };
    let address = |entry: &Value| {
        let own = entry["Service"]["Address"].as_str().unwrap();
        let node = entry["Node"]["Address"].as_str().unwrap();
        let host = if own.is_empty() { node } else { own };
        format!("{host}:{}", entry["Service"]["Port"])
    };
    let entries = found.as_array().unwrap().iter();
    entries.filter(has_all).map(address).collect()
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn go_kit_reads_what_we_register_and_stops_calling_what_is_drained() {
    let (service, operator) = (service(), Operator::at(&server()));
    let registry = registry_at(&server());
    let guard = registry
        .register(instance(&service, 8080).with_tag("v2").with_tag("blue"))
        .await
        .unwrap();
    let ours = ["10.0.0.1:8080".to_owned()];
    assert_eq!(as_go_kit_reads(&operator, &service, &[]).await, ours);
    assert_eq!(
        as_go_kit_reads(&operator, &service, &["blue", "v2"]).await,
        ours
    );
    assert!(
        as_go_kit_reads(&operator, &service, &["blue", "v3"])
            .await
            .is_empty()
    );
    guard
        .update(|instance| instance.with_ready(false))
        .await
        .unwrap();
    assert!(as_go_kit_reads(&operator, &service, &[]).await.is_empty());
    guard
        .update(|instance| instance.with_ready(true))
        .await
        .unwrap();
    assert_eq!(as_go_kit_reads(&operator, &service, &[]).await, ours);
    guard.deregister().await.unwrap();
    assert!(as_go_kit_reads(&operator, &service, &[]).await.is_empty());
}

/// go-kit's Registrar hands `api.AgentServiceRegistration` to the agent as it is; this is the one of its documentation.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn what_go_kit_registers_is_read_beside_our_own() {
    let (service, operator) = (service(), Operator::at(&server()));
    let registry = registry_at(&server());
    let ours = registry.register(instance(&service, 1)).await.unwrap();
    let mut seen = registry.subscribe(&service).unwrap();
    until(&mut seen, "ours", is_live_with(1)).await;
    let rest =
        r#","Tags":["alpha","beta"],"Port":12345,"Address":"10.0.0.3","EnableTagOverride":false"#;
    operator.register(&service, "unique-ID-1", rest).await;
    let state = until(&mut seen, "both", is_live_with(2)).await;
    let mut both = state.snapshot().instances().iter();
    let theirs = both.find(|one| one.id() != &ours.record_id().id).unwrap();
    assert_eq!(theirs.endpoint().to_string(), "10.0.0.3:12345");
    assert!(
        theirs
            .tags()
            .iter()
            .map(String::as_str)
            .eq(["alpha", "beta"])
    );
    assert!(
        theirs.id().as_str().starts_with("unique-ID-1-of-"),
        "{theirs:?}"
    );
    operator.deregister(&service, "unique-ID-1").await;
    let state = until(&mut seen, "ours alone", is_live_with(1)).await;
    // It was removed on purpose, whoever did it.
    assert_eq!(state.snapshot().held(), []);
}
