//! The test kit runs this Knot DNS.

use std::sync::Arc;
use std::time::Duration;

use sd_testing::ServerProcess;
use server_programs::testing::ready;
use server_programs::{Knot, LocalServer};
use tokio::time::timeout;

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn serves_its_zone_again_after_a_kill_and_is_silent_while_frozen() {
    let program = Knot::from_env().unwrap();
    let mut server = ServerProcess::launch(program.clone()).await.unwrap();
    let asked = || ready(Arc::new(program.clone()));
    asked().await.unwrap();
    let version = Knot::serving_at(&program.url()).unwrap();
    assert!(version.starts_with("Knot DNS 3."), "{version}");
    server.kill().unwrap();
    assert!(asked().await.is_err());
    server.restart().await.unwrap();
    asked().await.unwrap();
    server.freeze().unwrap();
    let silence = timeout(Duration::from_millis(300), asked()).await;
    assert!(silence.is_err(), "{silence:?}");
    server.thaw().unwrap();
    asked().await.unwrap();
}
