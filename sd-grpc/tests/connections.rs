//! What happens to one connection, and what the others have of it.

mod common;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use common::echo::{EchoClient, Text};
use common::{Set, TestServer, eventually, instance_at, ready, within};
use futures_util::StreamExt;
use futures_util::stream;
use sd_grpc::{ChannelConfig, EndpointState, KeepAlive};
use sd_testing::{Direction, Fault, TcpProxy};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;

#[tokio::test]
async fn a_request_stream_that_panics_fails_its_call_and_nothing_else() {
    let server = TestServer::start();
    let set = Set::of([server.instance()]);
    let channel = set.channel().build().unwrap();
    ready(&channel, 1).await;
    for _ in 0..2 {
        let (go, wait) = oneshot::channel::<()>();
        let texts = stream::iter([Text::new("a")]).chain(stream::once(async move {
            let _ = wait.await;
            panic!("a bug in the stream")
        }));
        let mut client = EchoClient::new(channel.clone());
        let joining = tokio::spawn(async move { client.join(texts).await });
        eventually("the call is in flight", || {
            channel.dump().endpoints[0].in_flight == 1
        })
        .await;
        drop(go);
        let failed = within("the call", joining).await.unwrap();
        assert!(failed.is_err(), "{failed:?}");
        let mut client = EchoClient::new(channel.clone());
        within("another call", client.say("hello")).await.unwrap();
    }
    assert_eq!(server.accepted(), 1, "the connection survived");
}

#[tokio::test]
async fn a_connector_that_panics_has_failed_and_is_asked_again() {
    let server = TestServer::start();
    let address = server.address;
    let dials = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dials);
    let connector = move |_| {
        let dial = counter.fetch_add(1, Ordering::SeqCst);
        async move {
            assert!(dial >= 2, "a bug in the connector");
            tokio::net::TcpStream::connect(address).await
        }
    };
    let mut config = ChannelConfig::default();
    config.connect_parallelism = 1;
    let set = Set::of([server.instance()]);
    let channel = set
        .channel()
        .config(config)
        .connector(connector)
        .build()
        .unwrap();
    ready(&channel, 1).await;
    assert_eq!(dials.load(Ordering::SeqCst), 3);
}

/// A socket that panics when it is dropped.
struct Fragile(TcpStream);

impl Drop for Fragile {
    fn drop(&mut self) {
        panic!("a bug in the socket")
    }
}

impl AsyncRead for Fragile {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Fragile {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn an_endpoint_whose_socket_panics_when_it_is_dropped_is_connected_again() {
    let server = TestServer::start();
    let proxy = TcpProxy::start(server.address).await.unwrap();
    let address = proxy.address();
    let connector = move |_| async move {
        let stream = TcpStream::connect(address).await?;
        Ok::<_, io::Error>(Fragile(stream))
    };
    let keep_alive = KeepAlive::new(Duration::from_secs(1), Duration::from_millis(200));
    let channel = Set::of([instance_at(address)])
        .channel()
        .connector(connector)
        .keep_alive(keep_alive.with_while_idle(true))
        .build()
        .unwrap();
    ready(&channel, 1).await;
    proxy.set(Fault::Hold(Direction::Both));
    eventually("the dead connection is found", || {
        channel.dump().endpoints[0].state != EndpointState::Ready
    })
    .await;
    proxy.set(Fault::Pass);
    ready(&channel, 1).await;
    let mut client = EchoClient::new(channel);
    within("a call", client.say("hello")).await.unwrap();
}

#[tokio::test]
async fn a_long_stream_survives_a_goodbye_but_not_the_removal_of_its_endpoint() {
    let mut server = TestServer::start();
    let mut config = ChannelConfig::default();
    config.drain_timeout = Duration::from_millis(100);
    let set = Set::of([server.instance()]);
    let channel = set.channel().config(config).build().unwrap();
    let (say, said) = mpsc::channel(1);
    say.send(Text::new("a")).await.unwrap();
    let mut client = EchoClient::new(channel.clone());
    let mut chat = client.chat(ReceiverStream::new(said)).await.unwrap();
    within("an echo", chat.message()).await.unwrap().unwrap();
    server.stop_gracefully();
    eventually("the goodbye is seen", || {
        channel.dump().endpoints[0].state != EndpointState::Ready
    })
    .await;
    // It lasts on: there is nothing to wait for but time.
    sleep(Duration::from_millis(400)).await;
    say.send(Text::new("b")).await.unwrap();
    let echo = within("an echo", chat.message()).await.unwrap().unwrap();
    assert_eq!(echo.text, "b");
    set.set([]);
    within("the end of the stream", chat.message())
        .await
        .unwrap_err();
}

/// SETTINGS with a limit of concurrent streams.
fn settings(max_streams: u8) -> [u8; 15] {
    [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, max_streams]
}

#[tokio::test]
async fn a_raised_stream_limit_wakes_the_calls_that_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = ChannelConfig::default();
    config.max_connections = 1;
    let set = Set::of([instance_at(listener.local_addr().unwrap())]);
    let channel = set.channel().config(config).build().unwrap();
    let (mut stream, _) = within("a connection", listener.accept()).await.unwrap();
    stream.write_all(&settings(0)).await.unwrap();
    ready(&channel, 1).await;
    let mut client = EchoClient::new(channel.clone());
    let call = tokio::spawn(async move { client.say("hello").await });
    // The call has no place to be seen in while it waits.
    sleep(Duration::from_millis(100)).await;
    stream.write_all(&settings(1)).await.unwrap();
    eventually("the call is sent", || {
        channel.dump().endpoints[0].in_flight == 1
    })
    .await;
    call.abort();
}

#[tokio::test]
async fn an_extra_connection_that_is_closed_at_once_is_not_reopened_in_a_loop() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&accepted);
    let server = tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        first.write_all(&settings(0)).await.unwrap();
        let (mut reading, mut discarded) = (first, vec![0; 4096]);
        loop {
            tokio::select! {
                _ = reading.read(&mut discarded) => {}
                extra = listener.accept() => {
                    let (mut extra, _) = extra.unwrap();
                    counter.fetch_add(1, Ordering::SeqCst);
                    // The client may be gone.
                    let _ = extra.write_all(&settings(0)).await;
                    // Long enough to count as connected.
                    tokio::spawn(async move {
                        sleep(Duration::from_millis(5)).await;
                        drop(extra);
                    });
                }
            }
        }
    });
    let channel = Set::of([instance_at(address)]).channel().build().unwrap();
    ready(&channel, 1).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        let mut request = tonic::Request::new(Text::new("hello"));
        request.set_timeout(Duration::from_millis(2));
        let mut client = EchoClient::new(channel.clone());
        client.unary(request).await.unwrap_err();
    }
    server.abort();
    let extra = accepted.load(Ordering::SeqCst);
    assert!((1..40).contains(&extra), "{extra} extra connections");
}

#[tokio::test]
async fn a_new_endpoint_does_not_queue_behind_retries_that_hang() {
    let server = TestServer::start();
    let good = server.address;
    let dials = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dials);
    let connector = move |instance: Arc<sd_core::Instance>| {
        let address = instance.endpoint().to_string();
        let is_good = address == good.to_string();
        let dial = if is_good {
            0
        } else {
            counter.fetch_add(1, Ordering::SeqCst)
        };
        async move {
            if !is_good {
                // The first ones fail at once, their retries hang.
                if dial >= 4 {
                    std::future::pending::<()>().await;
                }
                return Err(std::io::Error::other("unreachable"));
            }
            tokio::net::TcpStream::connect(good).await
        }
    };
    let bad = (1..=4).map(|port| instance_at(([127, 0, 0, 1], port).into()));
    let mut config = ChannelConfig::default();
    config.connect_parallelism = 2;
    config.connect_timeout = Duration::from_secs(10 * 60);
    config.reconnect_first = Duration::from_millis(1);
    let set = Set::of(bad.clone());
    let channel = set
        .channel()
        .config(config)
        .connector(connector)
        .build()
        .unwrap();
    eventually("a retry hangs", || dials.load(Ordering::SeqCst) > 4).await;
    // The retries of the others are due as well.
    sleep(Duration::from_millis(100)).await;
    set.set(bad.chain([server.instance()]));
    eventually("the new one is ready", || {
        let endpoints = channel.dump().endpoints;
        endpoints.iter().any(|e| e.state == EndpointState::Ready)
    })
    .await;
}
