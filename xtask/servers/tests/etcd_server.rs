//! The test kit runs a real etcd.

use server_programs::{EtcdProgram, EtcdServer};
use tokio::net::TcpStream;

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn an_etcd_is_started_killed_and_started_again_on_its_port() {
    let program = EtcdProgram::from_env().unwrap();
    let mut server = EtcdServer::launch(program).await.unwrap();
    let address = server.program().address();
    server.kill().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    server.restart().await.unwrap();
    TcpStream::connect(address).await.unwrap();
    server.restart_empty().await.unwrap();
    TcpStream::connect(address).await.unwrap();
}
