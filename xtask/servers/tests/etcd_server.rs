//! The test kit runs a real etcd.

use sd_testing::ServerProcess;
use server_programs::{Etcd, LocalServer};
use tokio::net::TcpStream;

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn an_etcd_is_started_killed_and_started_again_on_its_port() {
    let program = Etcd::from_env().unwrap();
    let mut server = ServerProcess::launch(program).await.unwrap();
    let address = server.program().address();
    server.kill().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    server.restart().await.unwrap();
    TcpStream::connect(address).await.unwrap();
    server.restart_empty().await.unwrap();
    TcpStream::connect(address).await.unwrap();
}
