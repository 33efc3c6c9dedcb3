//! What answers in place of ZooKeeper, and not as ZooKeeper does, costs the requests that it answers and nothing else.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::{config_at, event, instance, own_server, prefix, until};
use sd_core::ErrorKind;
use sd_testing::{TcpProxy, is_live_with, is_stale};
use server_programs::LocalServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How a server answers the request that makes a session, and each one after that. The number of a request is put before the latter, as
/// ZooKeeper does.
#[derive(Clone, Debug)]
struct Answers {
    session: Vec<u8>,
    request: Vec<u8>,
}

/// Behind its length.
fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = i32::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes(), bytes].concat()
}

/// As ZooKeeper does: version of the protocol, time-out, id, password, and that it is not for reading alone.
fn session() -> Vec<u8> {
    let mut fields = [0_i32.to_be_bytes(), 8000_i32.to_be_bytes()].concat();
    fields.extend(7_i64.to_be_bytes());
    fields.extend(frame(&[1; 16]));
    fields.push(0);
    frame(&fields)
}

async fn serve(mut client: TcpStream, answers: Answers) -> std::io::Result<()> {
    let mut is_first = true;
    loop {
        let length = usize::try_from(client.read_i32().await?).unwrap();
        let mut request = vec![0; length];
        client.read_exact(&mut request).await?;
        if std::mem::take(&mut is_first) {
            client.write_all(&answers.session).await?;
            continue;
        }
        let number = &request[..4];
        // What proves that the connection is alive, or else no session is made.
        let is_ping = number == (-2_i32).to_be_bytes();
        let answer = if is_ping {
            frame(&[number, &[0; 12]].concat())
        } else {
            answers.request.clone()
        };
        client.write_all(&answer).await?;
    }
}

/// A server that answers so, from now on.
async fn server(mut answers: watch::Receiver<Answers>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let now = answers.borrow_and_update().clone();
            tokio::spawn(serve(client, now));
        }
    });
    address
}

fn misbehaving() -> Vec<Answers> {
    let reply = |rest: &[u8]| frame(&[&[0; 16][..], rest].concat());
    let notification = |rest: &[u8]| {
        let header = [&(-1_i32).to_be_bytes()[..], &[0; 8], &[0; 4]].concat();
        frame(&[&header, rest].concat())
    };
    let in_session = [
        Vec::new(),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        frame(&[]),
        frame(&[0; 7]),
        (-1_i32).to_be_bytes().to_vec(),
        i32::MAX.to_be_bytes().to_vec(),
        // Of a request that was not made.
        reply(&[]),
        reply(&[0xff; 500]),
        notification(&[]),
        notification(&[0xff; 8]),
        notification(&[0, 0, 0, 99, 0, 0, 0, 99, 0, 0, 0, 0]),
        notification(&[0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 9, b'/']),
    ];
    let mut all: Vec<Answers> = in_session
        .into_iter()
        .map(|request| Answers {
            session: session(),
            request,
        })
        .collect();
    let of_session = [
        Vec::new(),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        frame(&[]),
        frame(&[0xff; 40]),
        frame(&session()[4..20]),
        (-1_i32).to_be_bytes().to_vec(),
    ];
    all.extend(of_session.map(|session| Answers {
        session,
        request: Vec::new(),
    }));
    all
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn whatever_answers_in_place_of_a_server_ends_nothing() {
    let limit = Duration::from_millis(500);
    let all = misbehaving();
    let (say, answers) = watch::channel(all[0].clone());
    let hostile = server(answers).await;
    let good = own_server().await;
    let proxy = TcpProxy::start(good.program().address()).await.unwrap();
    let address = proxy.address().to_string();
    let config = config_at(&address, &prefix()).with_request_timeout(limit * 20);
    let registry = sd_zk::connect(config).unwrap();
    let mut guard = registry.register(instance(1)).await.unwrap();
    event(&mut guard, "registered").await;
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    proxy.set_target(hostile);
    proxy.cut_connections();
    until(&mut seen, "stale", is_stale).await;
    for answers in all {
        say.send(answers.clone()).unwrap();
        proxy.cut_connections();
        let config = config_at(&address, "/s").with_request_timeout(limit);
        let fresh = sd_zk::connect(config).unwrap();
        let since = Instant::now();
        let error = fresh.list("greeter").await.unwrap_err();
        let report = error.report().to_string();
        assert!(
            !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Closed),
            "{answers:?}: {report}"
        );
        assert!(report.len() < 5000, "{report}");
        assert!(since.elapsed() < limit * 8, "{answers:?}: {report}");
        // The one that was there before meets it, too.
        sleep(limit).await;
        assert_eq!(seen.state().snapshot().len(), 1, "{answers:?}");
    }
    proxy.set_target(good.program().address());
    proxy.cut_connections();
    until(&mut seen, "live again", is_live_with(1)).await;
    guard.set_ready(false).await.unwrap();
    guard.deregister().await.unwrap();
}
