//! What following many services costs a server.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::served::{served, since, watchers};
use common::{LONG, eventually, own_server, prefix, registry_at, until};
use sd_core::{State, Status, Subscription};
use server_programs::LocalServer;
use tokio::time::sleep;

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn many_services_are_followed_on_one_stream_and_asked_about_at_once() {
    const SERVICES: u64 = 40;
    const SECONDS: u64 = 5;
    let server = own_server().await;
    let address = server.program().address();
    let registry = registry_at(&server.program().url(), &prefix());
    let before = served(address).await;
    let mut followed: Vec<Subscription> = (0..SERVICES)
        .map(|index| registry.subscribe(format!("service-{index}")).unwrap())
        .collect();
    let is_live = |state: &State| matches!(state.status(), Status::Live);
    for subscription in &mut followed {
        until(subscription, "live", is_live).await;
    }
    // As many services have no more than one watch each: the layout has plain values in the same folder or in none.
    let watches = watchers(address).await;
    assert!(watches >= SERVICES, "{watches}");
    let opened = served(address).await;
    assert_eq!(since(&before, &opened).get("Watch begun"), Some(&1));

    // It is asked every second, and answers for all of them.
    sleep(Duration::from_secs(SECONDS)).await;
    let told = since(&opened, &served(address).await);
    let told = told.get("Watch sent").copied().unwrap_or_default();
    assert!((1..=2 * SECONDS).contains(&told), "{told}");

    followed.truncate(1);
    let each = watches / SERVICES;
    eventually("the others have ended", LONG, async || {
        watchers(address).await == each
    })
    .await;
    until(&mut followed[0], "live", is_live).await;
}
