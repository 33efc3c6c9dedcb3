//! The test kit runs a moto.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use sd_testing::ServerProcess;
use server_programs::{LocalServer, Moto};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;

/// What an operator asks and gets, beside the runtime.
async fn ask(server: &ServerProcess<Moto>, operation: &'static str, arguments: &str) -> String {
    let (program, arguments) = (server.program().clone(), arguments.to_owned());
    let asked = spawn_blocking(move || program.cloud_map(operation, &arguments));
    asked.await.unwrap().unwrap()
}

#[tokio::test]
#[ignore = "needs cloudmap: cargo xtask test --backend cloudmap"]
async fn a_namespace_is_listed_until_moto_is_killed() {
    let program = Moto::from_env().unwrap();
    let mut server = ServerProcess::launch(program).await.unwrap();
    ask(&server, "CreateHttpNamespace", r#"{"Name": "sd-test"}"#).await;
    let listed = ask(&server, "ListNamespaces", "{}").await;
    assert!(listed.contains(r#""sd-test""#), "{listed}");
    server.kill().unwrap();
    let address = server.program().address();
    assert!(TcpStream::connect(address).await.is_err());
    server.restart().await.unwrap();
    let listed = ask(&server, "ListNamespaces", "{}").await;
    assert!(!listed.contains("sd-test"), "{listed}");
}
