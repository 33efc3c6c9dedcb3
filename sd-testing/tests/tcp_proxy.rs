//! The TCP proxy of the test kit breaks connections in the ways that it says.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use sd_testing::{Direction, Fault, TcpProxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// No wait in these tests is longer.
const SOON: Duration = Duration::from_secs(10);
/// Long enough for a loopback to deliver what it would deliver.
const QUIET: Duration = Duration::from_millis(100);

/// Sends everything back, with a mark before each connection's first byte.
struct Echo {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

async fn echo(mark: u8) -> Echo {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let (mut reads, mut writes) = stream.split();
                writes.write_all(&[mark]).await?;
                tokio::io::copy(&mut reads, &mut writes).await?;
                writes.shutdown().await
            });
        }
    });
    Echo {
        address,
        _tasks: tasks,
    }
}

async fn start(server: &Echo) -> TcpProxy {
    TcpProxy::start(server.address).await.unwrap()
}

async fn connect(proxy: &TcpProxy) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(read(&mut stream, 1).await.unwrap(), b"a");
    stream
}

async fn read(stream: &mut TcpStream, bytes: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; bytes];
    timeout(SOON, stream.read_exact(&mut buffer))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok(buffer)
}

/// The proxy's own task opens and closes its port soon after a fault is set.
async fn until_connecting(proxy: &TcpProxy, works: bool) {
    let deadline = Instant::now() + SOON;
    loop {
        match TcpStream::connect(proxy.address()).await {
            Ok(_) if works => return,
            Err(error) if !works && error.kind() == io::ErrorKind::ConnectionRefused => return,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
    }
}

async fn says_nothing(stream: &mut TcpStream) -> bool {
    timeout(QUIET, stream.read(&mut [0; 1])).await.is_err()
}

#[tokio::test]
async fn forwards_both_ways_to_the_end_and_counts() {
    let server = echo(b'a').await;
    let proxy = start(&server).await;
    let mut stream = connect(&proxy).await;
    let message = vec![7; 1_000_000];
    let (mut reads, mut writes) = stream.split();
    let sending = async {
        writes.write_all(&message).await.unwrap();
        writes.shutdown().await.unwrap();
    };
    let mut answer = Vec::new();
    let receiving = reads.read_to_end(&mut answer);
    let ((), received) = timeout(SOON, async { tokio::join!(sending, receiving) })
        .await
        .unwrap();
    received.unwrap();
    assert_eq!(answer, message);

    let counts = timeout(SOON, proxy.counted(|counts| counts.open == 0))
        .await
        .unwrap();
    assert_eq!(counts.accepted, 1);
    assert_eq!(
        (counts.bytes_to_server, counts.bytes_to_client),
        (1_000_000, 1_000_001)
    );
}

#[tokio::test]
async fn a_cut_resets_old_connections_and_refuses_new_ones_until_it_ends() {
    let server = echo(b'a').await;
    let proxy = start(&server).await;
    let mut old = connect(&proxy).await;
    proxy.set(Fault::Cut);
    let error = read(&mut old, 1).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    until_connecting(&proxy, false).await;
    proxy.set(Fault::Pass);
    until_connecting(&proxy, true).await;
    connect(&proxy).await;
}

#[tokio::test]
async fn refusing_leaves_old_connections_alone_and_a_single_cut_welcomes_new_ones() {
    let server = echo(b'a').await;
    let proxy = start(&server).await;
    let mut old = connect(&proxy).await;
    proxy.set(Fault::Refuse);
    until_connecting(&proxy, false).await;
    old.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut old, 1).await.unwrap(), b"x");

    let proxy = start(&server).await;
    let mut old = connect(&proxy).await;
    proxy.cut_connections();
    assert!(read(&mut old, 1).await.is_err());
    connect(&proxy).await;
}

#[tokio::test]
async fn what_was_held_arrives_when_the_hold_ends() {
    let server = echo(b'a').await;
    let proxy = start(&server).await;
    for direction in [Direction::ToServer, Direction::ToClient, Direction::Both] {
        let mut stream = connect(&proxy).await;
        proxy.set(Fault::Hold(direction));
        stream.write_all(b"x").await.unwrap();
        assert!(says_nothing(&mut stream).await, "{direction:?}");
        proxy.set(Fault::Pass);
        assert_eq!(read(&mut stream, 1).await.unwrap(), b"x", "{direction:?}");
    }
}

#[tokio::test]
async fn a_held_connection_can_be_cut() {
    let server = echo(b'a').await;
    let proxy = start(&server).await;
    let mut stream = connect(&proxy).await;
    proxy.set(Fault::Hold(Direction::Both));
    stream.write_all(b"x").await.unwrap();
    assert!(says_nothing(&mut stream).await);
    proxy.cut_connections();
    assert!(read(&mut stream, 1).await.is_err());
}

#[tokio::test]
async fn what_was_held_is_lost_when_the_hold_ends_with_a_cut() {
    let server = echo(b'a').await;
    let proxy = start(&server).await;
    for _ in 0..20 {
        let mut stream = connect(&proxy).await;
        proxy.set(Fault::Hold(Direction::ToClient));
        let held = proxy.counts().bytes_to_server;
        stream.write_all(b"x").await.unwrap();
        proxy.counted(|counts| counts.bytes_to_server > held).await;
        proxy.set(Fault::Cut);
        assert!(read(&mut stream, 1).await.is_err());
        proxy.set(Fault::Pass);
        while TcpStream::connect(proxy.address()).await.is_err() {}
    }
}

#[tokio::test]
async fn a_delay_delays() {
    let server = echo(b'a').await;
    let proxy = start(&server).await;
    let mut stream = connect(&proxy).await;
    proxy.set(Fault::Delay(Duration::from_millis(50)));
    let start = Instant::now();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut stream, 1).await.unwrap(), b"x");
    // Once each way.
    assert!(start.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_black_hole_swallows_and_resets_what_lost_bytes() {
    let server = echo(b'a').await;
    let proxy = start(&server).await;
    let mut idle = connect(&proxy).await;
    let mut busy = connect(&proxy).await;
    proxy.set(Fault::BlackHole);
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    busy.write_all(&vec![0; 1_000_000]).await.unwrap();
    new.write_all(&vec![0; 1_000_000]).await.unwrap();
    assert!(says_nothing(&mut busy).await);
    assert!(says_nothing(&mut new).await);
    proxy.set(Fault::Pass);
    assert!(read(&mut busy, 1).await.is_err());
    assert!(read(&mut new, 1).await.is_err());
    idle.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut idle, 1).await.unwrap(), b"x");
}

#[tokio::test]
async fn the_target_can_be_changed_and_an_unreachable_one_resets() {
    let (first, second) = (echo(b'a').await, echo(b'b').await);
    let proxy = start(&first).await;
    connect(&proxy).await;
    proxy.set_target(second.address);
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(read(&mut stream, 1).await.unwrap(), b"b");

    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = unused.local_addr().unwrap();
    drop(unused);
    proxy.set_target(target);
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(read(&mut stream, 1).await.is_err());
}

#[tokio::test]
async fn dropping_it_ends_its_connections_and_frees_its_port() {
    let server = echo(b'a').await;
    let proxy = start(&server).await;
    let address = proxy.address();
    let mut stream = connect(&proxy).await;
    drop(proxy);
    assert!(read(&mut stream, 1).await.is_err());
    let error = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}
