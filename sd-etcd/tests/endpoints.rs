//! Several endpoints of which some are dead, over a running etcd.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::{TTL, event, instance, is_live_with, own_server, prefix, server, until};
use sd_core::{ErrorKind, Registry, ServiceName};
use sd_etcd::EtcdConfig;
use sd_testing::{Fault, TcpProxy, free_port};
use server_programs::LocalServer;
use tokio::time::Instant;

/// What a call may take: connecting may have to wait for the head start of a dead endpoint.
const SOON: Duration = Duration::from_secs(1);

fn service() -> ServiceName {
    ServiceName::new("greeter").unwrap()
}

fn connect(endpoints: &[String]) -> Registry {
    let config = EtcdConfig::new(endpoints)
        .with_prefix(prefix())
        .with_keep_alive(Duration::from_secs(1), Duration::from_secs(1));
    sd_etcd::connect(config).unwrap()
}

async fn no_call_fails_or_is_slow(endpoints: [String; 2]) {
    // Several clients, since each begins at an endpoint of its own choice.
    for _ in 0..8 {
        let registry = connect(&endpoints);
        for _ in 0..20 {
            let since = Instant::now();
            registry.list(&service()).await.unwrap();
            assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
        }
        let since = Instant::now();
        let guard = registry.register(instance(1)).ttl(TTL).await.unwrap();
        assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
        guard.deregister().await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn with_one_of_two_endpoints_refused_no_call_fails_or_is_slow() {
    let refused = format!("http://127.0.0.1:{}", free_port().unwrap());
    no_call_fails_or_is_slow([refused, server()]).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn with_one_of_two_endpoints_in_a_black_hole_no_call_fails_or_is_slow() {
    let target = server().trim_start_matches("http://").parse().unwrap();
    let proxy = TcpProxy::start(target).await.unwrap();
    proxy.set(Fault::BlackHole);
    no_call_fails_or_is_slow([format!("http://{}", proxy.address()), server()]).await;
}

/// Both lead to one server, so what survives is our choice between them and not the server's.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn an_endpoint_that_falls_silent_in_use_is_left_for_the_other() {
    let server = own_server().await;
    let target = server.program().address();
    let proxies = [
        TcpProxy::start(target).await.unwrap(),
        TcpProxy::start(target).await.unwrap(),
    ];
    let endpoints = proxies
        .each_ref()
        .map(|proxy| format!("http://{}", proxy.address()));
    let registry = connect(&endpoints);
    let mut guard = registry.register(instance(1)).ttl(TTL).await.unwrap();
    event(&mut guard, "registered").await;
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;

    let used = usize::from(proxies[0].counts().open == 0);
    proxies[used].set(Fault::BlackHole);
    // Writes and the feed both find the other way, before the lease ends. Whether a renewal fails first is chance.
    guard.set_ready(false).await.unwrap();
    let events = event(&mut guard, "updated").await;
    assert!(
        events.iter().all(|event| event.as_str() != "lost"),
        "{events:?}"
    );
    until(&mut seen, "unready", |state| {
        state.status().as_str() == "live"
            && state.snapshot().instances().iter().all(|i| !i.is_ready())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn with_every_endpoint_dead_the_error_names_each_and_why() {
    let dead = [(); 2].map(|()| format!("http://127.0.0.1:{}", free_port().unwrap()));
    let error = connect(&dead).list(&service()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let report = error.report().to_string();
    for endpoint in &dead {
        assert!(report.contains(endpoint), "{report}");
    }
    assert!(report.contains("refused"), "{report}");
}
