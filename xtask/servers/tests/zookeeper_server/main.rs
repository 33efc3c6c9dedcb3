//! The test kit runs one of ZooKeeper, an ensemble, one with TLS, and those that want to know who comes.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod tls;

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use sd_testing::{ServerGroup, ServerProcess};
use server_programs::{Allowed, LocalServer, ZooKeeper, ZooKeeperSession};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

/// No wait in these tests is longer.
const SOON: Duration = Duration::from_mins(1);

async fn create(server: SocketAddr, path: &'static str, data: &'static str) {
    let created = spawn_blocking(move || {
        ZooKeeperSession::connect(server)?.create(path, data, Allowed::Anyone)
    });
    created.await.unwrap().unwrap();
}

async fn data(server: SocketAddr, path: &'static str) -> String {
    let data = spawn_blocking(move || ZooKeeperSession::connect(server)?.data(path));
    data.await.unwrap().unwrap()
}

async fn srvr(server: &ServerProcess<ZooKeeper>) -> std::io::Result<String> {
    let program = server.program().clone();
    let asked = spawn_blocking(move || program.four_letter_word("srvr"));
    asked.await.unwrap()
}

fn address(server: &ServerProcess<ZooKeeper>) -> SocketAddr {
    server.program().address()
}

/// Waits until it serves, or no longer does.
async fn until_serving_is(wanted: bool, server: &ServerProcess<ZooKeeper>) {
    let give_up_at = Instant::now() + SOON;
    loop {
        let said = srvr(server).await;
        let is_serving = said.as_ref().is_ok_and(|said| said.contains("Mode: "));
        if is_serving == wanted {
            return;
        }
        assert!(Instant::now() < give_up_at, "{said:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// The member that leads the others.
async fn leader(group: &ServerGroup<ZooKeeper>) -> usize {
    let give_up_at = Instant::now() + SOON;
    loop {
        for (index, member) in group.members().iter().enumerate() {
            let said = srvr(member).await;
            if said.is_ok_and(|said| said.contains("Mode: leader")) {
                return index;
            }
        }
        assert!(Instant::now() < give_up_at, "no member leads");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_node_survives_a_kill_and_not_the_loss_of_the_data() {
    let program = ZooKeeper::from_env().unwrap();
    let mut server = ServerProcess::launch(program).await.unwrap();
    create(address(&server), "/a", "1").await;
    server.kill().unwrap();
    assert!(TcpStream::connect(address(&server)).await.is_err());
    server.restart().await.unwrap();
    assert_eq!(data(address(&server), "/a").await, "1");
    server.restart_empty().await.unwrap();
    create(address(&server), "/a", "2").await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn an_ensemble_serves_while_most_of_it_lives() {
    let programs = ZooKeeper::ensemble_from_env(3).unwrap();
    let mut group = ServerGroup::launch(programs).await.unwrap();
    create(address(&group.members()[0]), "/a", "1").await;

    // Its leader is killed: the others go on, and it comes back with what was written meanwhile.
    let killed = leader(&group).await;
    group.members_mut()[killed].kill().unwrap();
    let next = leader(&group).await;
    create(address(&group.members()[next]), "/b", "2").await;
    group.members_mut()[killed].restart().await.unwrap();
    assert_eq!(data(address(&group.members()[killed]), "/b").await, "2");

    // A frozen one is silent, and goes on.
    let frozen = (next + 1) % 3;
    let member = &group.members()[frozen];
    member.freeze().unwrap();
    let silence = timeout(Duration::from_millis(300), srvr(member)).await;
    assert!(silence.is_err(), "{silence:?}");
    member.thaw().unwrap();
    until_serving_is(true, member).await;

    // Most are gone: what is left says that it does not serve.
    for member in group.members_mut().iter_mut().skip(1) {
        member.kill().unwrap();
    }
    until_serving_is(false, &group.members()[0]).await;
    group.restart_all().await.unwrap();
    assert_eq!(data(address(&group.members()[0]), "/a").await, "1");
    assert_eq!(data(address(&group.members()[2]), "/b").await, "2");
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_session_of_another_client_is_expired() {
    let server = ServerProcess::launch(ZooKeeper::from_env().unwrap())
        .await
        .unwrap();
    let program = server.program().clone();
    let expired = spawn_blocking(move || {
        let mut client = ZooKeeperSession::connect(program.address())?;
        client.create("/a", "1", Allowed::Anyone)?;
        program.expire_session(client.id())?;
        let again = program.expire_session(client.id()).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::NotFound);
        // Its own connection has ended with it, and what is not ephemeral is there.
        client.data("/a").unwrap_err();
        ZooKeeperSession::connect(program.address())?.data("/a")
    });
    assert_eq!(expired.await.unwrap().unwrap(), "1");
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_sign_of_life_is_answered_over_the_connection_of_a_session() {
    let server = ServerProcess::launch(ZooKeeper::from_env().unwrap())
        .await
        .unwrap();
    let address = address(&server);
    let answered = spawn_blocking(move || {
        let mut connection = ZooKeeperSession::connect(address)?.into_connection();
        let mut answer = [0; 20];
        for _ in 0..3 {
            connection.write_all(&ZooKeeperSession::PING)?;
            connection.read_exact(&mut answer)?;
            // The length of the rest, and the number of the request.
            assert_eq!(answer[..8], [0, 0, 0, 16, 0xFF, 0xFF, 0xFF, 0xFE]);
        }
        io::Result::Ok(())
    });
    answered.await.unwrap().unwrap();
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn with_digest_only_those_who_authenticate_are_let_in_and_each_to_its_own() {
    let program = ZooKeeper::from_env().unwrap().with_digest();
    let mut server = ServerProcess::launch(program).await.unwrap();
    let address = address(&server);
    let refused = spawn_blocking(move || {
        ZooKeeperSession::connect(address)?.create("/a", "1", Allowed::Anyone)
    });
    refused.await.unwrap().unwrap_err();
    let owned = spawn_blocking(move || {
        let log_in = |password| {
            let mut session = ZooKeeperSession::connect(address)?;
            session.authenticate("svc", password)?;
            Ok::<_, io::Error>(session)
        };
        log_in("right")?.create("/own", "1", Allowed::Authenticated)?;
        let error = log_in("wrong")?.data("/own").unwrap_err().to_string();
        // NOAUTH
        assert!(error.contains("-102"), "{error}");
        log_in("right")?.data("/own")
    });
    assert_eq!(owned.await.unwrap().unwrap(), "1");
    server.kill().unwrap();
    server.restart().await.unwrap();
    let refused = spawn_blocking(move || ZooKeeperSession::connect(address)?.data("/own"));
    refused.await.unwrap().unwrap_err();
}
