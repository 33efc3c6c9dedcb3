//! Real registries that freeze, as readers over HTTP see it.

use std::net::SocketAddr;

use sd_testing::{Direction, Fault, LONG, ServerProcess, TcpProxy};
use server_programs::LocalServer;
use tokio::time::timeout;

use crate::common::sets::greeter;
use crate::common::{Frame, SseStream, TestAgent, TestConfig};
use crate::streams::{EVENTS, with_ids};

/// A registry that freezes and comes back, as its readers see it.
async fn readers_keep_their_set_while_it_is_frozen(
    url: impl Fn(SocketAddr) -> String,
    server: SocketAddr,
) {
    let owner = sd_any::connect(&url(server)).unwrap();
    let _guard = owner.register(greeter("g-1", 1)).await.unwrap();
    let proxy = TcpProxy::start(server).await.unwrap();
    let registry = sd_any::connect(&url(proxy.address())).unwrap();
    let agent = TestAgent::start_at(registry, TestConfig::default()).await;
    let mut stream = agent.client().events(EVENTS).await;
    let (live, _) = with_ids(&mut stream, &["g-1"]).await;
    for fault in [Fault::Cut, Fault::Hold(Direction::Both)] {
        proxy.set(fault);
        let degraded = stream_event(&mut stream).await;
        assert_eq!(degraded.event(), "degraded", "{degraded:?}");
        assert_eq!(degraded.json()["status"], "stale");
        let service = agent.client().get("/v1/services/greeter").await.expect(200);
        assert_eq!(service["status"], "stale");
        assert_eq!(service["instances"][0]["id"], "g-1");
        proxy.set(Fault::Pass);
        let back = stream_event(&mut stream).await;
        assert_eq!((back.event(), back.id()), ("resync", live.id()));
    }
    agent.registry.close().await.unwrap();
    owner.close().await.unwrap();
}

/// The next event of a feed that may find out only by its silence limit, which is longer than other waits.
async fn stream_event(stream: &mut SseStream) -> Frame {
    let waiting = stream.event();
    timeout(LONG * 4, waiting).await.unwrap()
}

#[cfg(feature = "etcd")]
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn readers_keep_their_set_while_etcd_is_frozen() {
    let program = server_programs::Etcd::from_env().unwrap();
    let server = program.address();
    let _server = ServerProcess::launch(program).await.unwrap();
    let url = |at: SocketAddr| format!("etcd://{at}/services");
    readers_keep_their_set_while_it_is_frozen(url, server).await;
}

#[cfg(feature = "consul")]
#[tokio::test]
#[ignore = "needs Consul: cargo xtask test --backend consul"]
async fn readers_keep_their_set_while_consul_is_frozen() {
    let program = server_programs::Consul::from_env().unwrap();
    let server = program.address();
    let _server = ServerProcess::launch(program).await.unwrap();
    // Its silence is noticed after these.
    let url = |at: SocketAddr| format!("consul://{at}?wait=3s&request_timeout=2s");
    readers_keep_their_set_while_it_is_frozen(url, server).await;
}
