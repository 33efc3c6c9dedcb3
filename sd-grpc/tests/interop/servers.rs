//! Servers that are called without a registry: grpc-go's, and ours.

use std::net::SocketAddr;
use std::time::Duration;

use sd_core::Instance;
use sd_core::memory::Memory;
use sd_grpc::{RunningServer, Server, Services};
use sd_testing::Peer;
use serde::Deserialize;
use tokio::net::TcpListener;

use crate::common::within;

/// Names grpc-go's program.
pub const GRPC_GO: &str = "SD_TEST_GRPC_GO";

#[derive(Deserialize)]
struct Told {
    address: SocketAddr,
}

/// grpc-go's server of the interop tests.
pub async fn grpc_go_server(flags: &[&str]) -> (Peer, SocketAddr) {
    let arguments = [&["server"], flags].concat();
    let mut server = Peer::start(GRPC_GO, &arguments).unwrap();
    let line = within("grpc-go's server listens", server.line()).await;
    let Told { address } = serde_json::from_str(&line.unwrap()).unwrap();
    (server, address)
}

/// Ours.
pub async fn tonic_server(services: Services) -> (RunningServer, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let instance = Instance::new("interop", address).unwrap();
    let server = Server::new(&Memory::new().connect(), instance)
        .drain(Duration::ZERO)
        .listen(listener, services);
    let running = server.start();
    running.registered().await.unwrap();
    (running, address)
}
