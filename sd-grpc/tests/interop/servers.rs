//! Servers that are called without a registry: grpc-go's, grpc-js's, ours, and nginx.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use sd_core::Instance;
use sd_core::memory::Memory;
use sd_grpc::{RunningServer, Server, Services};
use sd_testing::{Peer, free_port};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::common::within;

/// Names grpc-go's program.
pub const GRPC_GO: &str = "SD_TEST_GRPC_GO";

/// Names grpc-js's program.
pub const GRPC_JS: &str = "SD_TEST_GRPC_JS";

const NGINX: &str = "SD_TEST_NGINX";

#[derive(Deserialize)]
struct Told {
    address: SocketAddr,
}

/// A peer's server of the interop tests.
pub async fn server_of(peer: &str, flags: &[&str]) -> (Peer, SocketAddr) {
    let arguments = [&["server"], flags].concat();
    let mut server = Peer::start(peer, &arguments).unwrap();
    let line = within("a peer's server listens", server.line()).await;
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

/// nginx with its own limits, as a proxy of the server at `behind`. It ends when what is returned is dropped.
pub async fn nginx(behind: SocketAddr) -> (Peer, TempDir, SocketAddr) {
    let folder = tempfile::tempdir().unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
    let configuration = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr error;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
            uwsgi_temp_path uwsgi; scgi_temp_path scgi;
            upstream behind {{ server {behind}; keepalive 16; }}
            server {{ listen {address} http2; location / {{ grpc_pass grpc://behind; }} }}
        }}"
    );
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, configuration).unwrap();
    let [prefix, file] = [folder.path(), &file].map(|path| path.to_str().unwrap());
    let nginx = Peer::start(NGINX, &["-p", prefix, "-c", file]).unwrap();
    let listening = async {
        while TcpStream::connect(address).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    within("nginx listens", listening).await;
    (nginx, folder, address)
}
