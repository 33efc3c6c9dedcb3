//! The test kit runs these Redis and Valkey servers: one alone, one that wants to know who comes, one with TLS, Sentinels, a Cluster.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod tls;

use std::time::Duration;

use sd_testing::{ServerGroup, ServerProcess};
use server_programs::{LocalServer, Redis};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

/// No wait in these tests is longer. A Sentinel of a busy machine that could not run for 2 s replaces no primary for 30 s.
const SOON: Duration = Duration::from_mins(2);

/// What an operator asks and gets, beside the runtime.
async fn ask(server: &ServerProcess<Redis>, words: &[&'static str]) -> String {
    try_ask(server, words).await.unwrap()
}

async fn try_ask(server: &ServerProcess<Redis>, words: &[&'static str]) -> std::io::Result<String> {
    let (program, words) = (server.program().clone(), words.to_owned());
    let asked = spawn_blocking(move || program.ask(&words));
    asked.await.unwrap()
}

/// Asks two servers until it is so.
async fn until_so(
    servers: [&ServerProcess<Redis>; 2],
    is_so: impl Fn(&Redis, &Redis) -> std::io::Result<bool> + Clone + Send + 'static,
) {
    let give_up_at = Instant::now() + SOON;
    loop {
        let ([one, other], is_so) = (servers.map(|one| one.program().clone()), is_so.clone());
        let asked = spawn_blocking(move || is_so(&one, &other)).await.unwrap();
        if matches!(asked, Ok(true)) {
            return;
        }
        assert!(Instant::now() < give_up_at, "{servers:?}: {asked:?}");
        sleep(Duration::from_millis(50)).await;
    }
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
async fn with_users_only_those_who_log_in_are_let_in_also_after_a_restart() {
    let program = Redis::from_env().unwrap();
    let stranger = program.clone();
    let program = program.with_users(("op", "secret"), ["svc on >other ~sd:* +get"]);
    let mut server = ServerProcess::launch(program).await.unwrap();
    for _ in 0..2 {
        assert_eq!(ask(&server, &["ACL", "WHOAMI"]).await, "op");
        assert!(ask(&server, &["ACL", "LIST"]).await.contains("user svc on"));
        let stranger = stranger.clone();
        let refused = spawn_blocking(move || stranger.ask(&["PING"])).await;
        let error = refused.unwrap().unwrap_err().to_string();
        assert!(error.contains("NOAUTH"), "{error}");
        server.restart().await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn sentinels_replace_a_primary_that_is_killed() {
    let programs = Redis::sentinels_from_env("main").unwrap();
    let mut group = ServerGroup::launch(programs).await.unwrap();
    let [primary, replica, first, ..] = group.members_mut() else {
        panic!("five members");
    };
    assert_eq!(ask(primary, &["SET", "a", "1"]).await, "OK");
    until_so([replica, primary], Redis::has_all_of).await;
    primary.kill().unwrap();
    until(replica, &["ROLE"], "master").await;
    assert_eq!(ask(replica, &["GET", "a"]).await, "1");
    let port = replica.program().address().port().to_string();
    let named = &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"];
    until(first, named, &port).await;
    primary.restart().await.unwrap();
    until(primary, &["ROLE"], "slave").await;
    // Sentinels remember what they know.
    first.kill().unwrap();
    first.restart().await.unwrap();
    until(first, named, &port).await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_cluster_moves_a_slot_and_replaces_a_node_which_comes_back_without_its_data() {
    let programs = Redis::cluster_from_env().unwrap();
    let mut group = ServerGroup::launch(programs).await.unwrap();
    // It belongs to the third primary.
    let slot = group.members()[0].program().clone();
    let slot = spawn_blocking(move || slot.slot_of("a")).await.unwrap();
    let slot = slot.unwrap();
    assert_eq!(slot, 15_495);
    assert_eq!(ask(&group.members()[2], &["SET", "a", "1"]).await, "OK");
    let refused = try_ask(&group.members()[0], &["GET", "a"]).await;
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("MOVED 15495 "), "{error}");

    let [first, third] = [0, 2].map(|node| group.members()[node].program().clone());
    let moved = spawn_blocking(move || third.move_slot(slot, &first)).await;
    moved.unwrap().unwrap();
    assert_eq!(ask(&group.members()[0], &["GET", "a"]).await, "1");
    let [first, others @ ..] = group.members() else {
        panic!("six members");
    };
    for other in others {
        let knows_it = move |other: &Redis, first: &Redis| other.knows_slot_at(slot, first);
        until_so([other, first], knows_it).await;
    }
    until_so([&group.members()[3], first], Redis::has_all_of).await;

    let [first, _, _, replica, ..] = group.members_mut() else {
        panic!("six members");
    };
    first.kill().unwrap();
    until(replica, &["ROLE"], "master").await;
    until(replica, &["CLUSTER", "INFO"], "cluster_state:ok").await;
    assert_eq!(ask(replica, &["GET", "a"]).await, "1");
    first.restart_empty().await.unwrap();
    until(first, &["ROLE"], "slave").await;
    until(first, &["INFO", "replication"], "master_link_status:up").await;
}
