//! The test kit runs these Redis and Valkey servers.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use sd_testing::{ServerGroup, ServerProcess};
use server_programs::{LocalServer, Redis};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

/// No wait in these tests is longer.
const SOON: Duration = Duration::from_mins(1);

/// What an operator asks and gets, beside the runtime.
async fn ask(server: &ServerProcess<Redis>, words: &[&'static str]) -> String {
    try_ask(server, words).await.unwrap()
}

async fn try_ask(server: &ServerProcess<Redis>, words: &[&'static str]) -> std::io::Result<String> {
    let (program, words) = (server.program().clone(), words.to_owned());
    let asked = spawn_blocking(move || program.ask(&words));
    asked.await.unwrap()
}

/// Asks until the answer holds `part`.
async fn until(server: &ServerProcess<Redis>, words: &[&'static str], part: &str) {
    let give_up_at = Instant::now() + SOON;
    loop {
        let answer = try_ask(server, words).await;
        if answer.as_ref().is_ok_and(|answer| answer.contains(part)) {
            return;
        }
        assert!(Instant::now() < give_up_at, "{words:?}: {answer:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn what_was_written_survives_a_kill_and_not_the_loss_of_the_data() {
    let program = Redis::from_env().unwrap();
    let mut server = ServerProcess::launch(program).await.unwrap();
    assert_eq!(ask(&server, &["SET", "a", "1 and 2"]).await, "OK");
    server.kill().unwrap();
    let address = server.program().address();
    assert!(TcpStream::connect(address).await.is_err());
    server.restart().await.unwrap();
    assert_eq!(ask(&server, &["GET", "a"]).await, "1 and 2");
    server.restart_empty().await.unwrap();
    assert_eq!(ask(&server, &["GET", "a"]).await, "");
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn is_silent_while_frozen_and_goes_on_afterwards() {
    let program = Redis::from_env().unwrap();
    let server = ServerProcess::launch(program).await.unwrap();
    server.freeze().unwrap();
    let silence = timeout(Duration::from_millis(300), ask(&server, &["PING"])).await;
    assert!(silence.is_err(), "{silence:?}");
    server.thaw().unwrap();
    assert_eq!(ask(&server, &["PING"]).await, "PONG");
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn sentinels_replace_a_primary_that_is_killed() {
    let primary = Redis::from_env().unwrap();
    let replica = Redis::from_env().unwrap().replica_of(&primary);
    let sentinel = || Redis::from_env().unwrap().sentinel_of(&primary, "main", 2);
    let programs = [primary.clone(), replica, sentinel(), sentinel()];
    let mut group = ServerGroup::launch(programs).await.unwrap();
    let [primary, replica, first, second] = group.members_mut() else {
        panic!("four members");
    };
    until(replica, &["INFO", "replication"], "master_link_status:up").await;
    for sentinel in [&first, &second] {
        let known = &["SENTINEL", "MASTER", "main"];
        until(sentinel, known, "num-slaves\r\n$1\r\n1\r\n").await;
        until(sentinel, known, "num-other-sentinels\r\n$1\r\n1\r\n").await;
    }
    primary.kill().unwrap();
    until(replica, &["ROLE"], "master").await;
    let port = replica.program().address().port().to_string();
    let named = &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"];
    until(first, named, &port).await;
    primary.restart().await.unwrap();
    until(primary, &["ROLE"], "slave").await;
}
