//! Servers that are dead, mute, broken or restarting, and what callers see of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::echo::{EchoClient, Text, UNARY};
use common::{Set, TestServer, eventually, instance_at, ready, within};
use futures_util::future::join_all;
use sd_grpc::{BalancedChannel, ChannelConfig, EndpointState};
use sd_testing::{Direction, Fault, TcpProxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

/// Calls one after another; says how many failed and how long the longest took.
async fn burst(channel: &BalancedChannel, calls: usize) -> (usize, Duration) {
    let mut client = EchoClient::new(channel.clone());
    let (mut failed, mut longest) = (0, Duration::ZERO);
    for _ in 0..calls {
        let before = Instant::now();
        failed += usize::from(client.say("hello").await.is_err());
        longest = longest.max(before.elapsed());
    }
    (failed, longest)
}

/// Listens and does with each connection what it is told, at once.
struct Rogue {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Rogue {
    /// Sends `greeting` and closes.
    async fn sending(greeting: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                // The client may be gone.
                let _ = stream.write_all(greeting).await;
            }
        });
        Self {
            address,
            accepted,
            task: task.abort_handle(),
        }
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn one_of_two_refuses_and_no_call_fails() {
    let server = TestServer::start();
    let unused = sd_testing::free_port().unwrap();
    let unused = SocketAddr::from(([127, 0, 0, 1], unused));
    let set = Set::of([server.instance(), instance_at(unused)]);
    let channel = set.channel().build().unwrap();
    assert_eq!(burst(&channel, 2_000).await.0, 0);
    assert_eq!(channel.dump().sent_again, 0);
    eventually("it is known to fail", || {
        let endpoints = channel.dump().endpoints;
        endpoints
            .iter()
            .any(|e| e.state == EndpointState::Failing && e.reason.is_some())
    })
    .await;
}

#[tokio::test]
async fn one_of_two_swallows_everything_and_no_call_waits_for_it() {
    let (server, behind) = (TestServer::start(), TestServer::start());
    let proxy = TcpProxy::start(behind.address).await.unwrap();
    proxy.set(Fault::BlackHole);
    let set = Set::of([server.instance(), instance_at(proxy.address())]);
    let channel = set.channel().build().unwrap();
    let (failed, longest) = burst(&channel, 2_000).await;
    assert_eq!(failed, 0);
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    assert_eq!(behind.calls(), 0);
}

#[tokio::test]
async fn one_of_two_accepts_and_closes_and_is_not_flooded() {
    let server = TestServer::start();
    let rogue = Rogue::sending(b"").await;
    let set = Set::of([server.instance(), instance_at(rogue.address)]);
    let channel = set.channel().build().unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        assert_eq!(burst(&channel, 200).await.0, 0);
    }
    let connects = rogue.accepted.load(Ordering::SeqCst);
    assert!((1..40).contains(&connects), "{connects} connects");
}

#[tokio::test]
async fn one_of_two_greets_and_closes_and_is_not_flooded() {
    // An empty SETTINGS frame: to us it looks connected for a moment.
    let server = TestServer::start();
    let rogue = Rogue::sending(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    let set = Set::of([server.instance(), instance_at(rogue.address)]);
    let channel = set.channel().idempotent_methods([UNARY]).build().unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        assert_eq!(burst(&channel, 200).await.0, 0);
    }
    let connects = rogue.accepted.load(Ordering::SeqCst);
    assert!((1..40).contains(&connects), "{connects} connects");
}

#[tokio::test]
async fn what_is_no_http2_is_named() {
    let rogue = Rogue::sending(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let channel = Set::of([instance_at(rogue.address)])
        .channel()
        .build()
        .unwrap();
    let mut client = EchoClient::new(channel);
    let status = within("an answer", client.say("hello")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let address = rogue.address.to_string();
    assert!(status.message().contains(&address), "{status}");
    assert!(status.message().contains("1 of 1"), "{status}");
}

#[tokio::test]
async fn after_a_restart_of_all_no_old_error_shows() {
    let mut servers = [
        TestServer::start(),
        TestServer::start(),
        TestServer::start(),
        TestServer::start(),
    ];
    let set = Set::of(servers.iter().map(TestServer::instance));
    let channel = set.channel().build().unwrap();
    ready(&channel, 4).await;
    assert_eq!(burst(&channel, 100).await.0, 0);
    servers.iter_mut().for_each(TestServer::kill);
    eventually("no endpoint is ready", || {
        let endpoints = channel.dump().endpoints;
        endpoints.iter().all(|e| e.state == EndpointState::Failing)
    })
    .await;
    let mut client = EchoClient::new(channel.clone());
    let before = Instant::now();
    let status = client.say("hello").await.unwrap_err();
    assert!(before.elapsed() < Duration::from_secs(1), "fails at once");
    assert!(status.message().contains("4 of 4"), "{status}");

    let again = servers.map(|server| TestServer::restart_at(server.address));
    ready(&channel, 4).await;
    assert_eq!(burst(&channel, 200).await.0, 0);
    assert!(again.iter().all(|server| server.calls() > 0));
}

#[tokio::test]
async fn a_restart_of_the_only_server_is_waited_for() {
    let server = TestServer::start();
    let proxy = TcpProxy::start(server.address).await.unwrap();
    let set = Set::of([instance_at(proxy.address())]);
    let channel = set.channel().build().unwrap();
    ready(&channel, 1).await;
    for cut in 1..=3 {
        proxy.cut_connections();
        eventually("the loss is seen", || server.accepted() > cut).await;
        let mut client = EchoClient::new(channel.clone());
        let mut request = tonic::Request::new(Text::new("hello"));
        request.extensions_mut().insert(sd_grpc::WaitForReady(true));
        client.unary(request).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goodbye_in_mid_burst_fails_no_call() {
    let mut leaver = TestServer::answering(|_| async {
        sleep(Duration::from_millis(3)).await;
        Ok(Text::new("leaver"))
    });
    let stayer = TestServer::start();
    let set = Set::of([leaver.instance(), stayer.instance()]);
    let channel = set.channel().build().unwrap();
    ready(&channel, 2).await;
    let callers = (0..32).map(|_| {
        let mut client = EchoClient::new(channel.clone());
        tokio::spawn(async move {
            for _ in 0..100 {
                client.say("hello").await.unwrap();
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    eventually("calls are in flight", || leaver.calls() > 200).await;
    leaver.stop_gracefully();
    for caller in callers {
        within("a caller", caller).await.unwrap();
    }
    let dump = channel.dump();
    assert_eq!((dump.calls, dump.failed), (3_200, 0));
    let executed = leaver.calls() + stayer.calls();
    assert_eq!(executed, 3_200, "none was executed twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_not_idempotent_is_executed_twice_when_connections_break() {
    let servers = [0, 1].map(|_| {
        TestServer::answering(|_| async {
            sleep(Duration::from_millis(1)).await;
            Ok(Text::new("done"))
        })
    });
    let mut proxies = Vec::new();
    for server in &servers {
        proxies.push(TcpProxy::start(server.address).await.unwrap());
    }
    let set = Set::of(proxies.iter().map(|proxy| instance_at(proxy.address())));
    let mut config = ChannelConfig::default();
    config.wait_for_ready = true;
    // Connections break all the time here: come back quickly nevertheless.
    config.reconnect_cap = Duration::from_millis(10);
    let channel = set.channel().config(config).build().unwrap();
    ready(&channel, 2).await;
    let callers = (0..16).map(|caller| {
        let mut client = EchoClient::new(channel.clone());
        tokio::spawn(async move {
            let mut done = 0;
            for call in 0..200 {
                done += usize::from(client.say(&format!("{caller}/{call}")).await.is_ok());
            }
            done
        })
    });
    let callers = join_all(callers.collect::<Vec<_>>());
    // After so many calls and not after some time, in which a busy machine gets few of them done.
    let served = || servers.iter().map(TestServer::calls).sum::<usize>();
    let breaking = async {
        for round in 0.. {
            let enough = served() + 100;
            eventually("another hundred calls", || served() >= enough).await;
            let proxy: &TcpProxy = &proxies[round % 2];
            proxy.cut_connections();
        }
    };
    let done = tokio::select! {
        done = callers => done,
        () = breaking => unreachable!("it never ends"),
    };
    let done: usize = done.into_iter().map(Result::unwrap).sum();
    let executed = servers.each_ref().map(TestServer::executed);
    let mut distinct = std::collections::BTreeSet::new();
    for (text, times) in executed.iter().flatten() {
        assert!(
            *times == 1 && distinct.insert(text),
            "{text} was executed twice"
        );
    }
    assert!(distinct.len() >= done, "each answer was executed");
    assert!(done < 3_200 && done > 1_000, "{done} of 3200 were answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotent_calls_survive_a_killed_server() {
    let slow = |_| async {
        sleep(Duration::from_millis(5)).await;
        Ok(Text::new("done"))
    };
    let mut victim = TestServer::answering(slow);
    let others = [TestServer::answering(slow), TestServer::answering(slow)];
    let set = Set::of([
        victim.instance(),
        others[0].instance(),
        others[1].instance(),
    ]);
    let channel = set.channel().idempotent_methods([UNARY]).build().unwrap();
    ready(&channel, 3).await;
    let callers = (0..32).map(|_| {
        let mut client = EchoClient::new(channel.clone());
        tokio::spawn(async move {
            for _ in 0..50 {
                client.say("hello").await.unwrap();
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    eventually("calls are in flight", || victim.calls() > 100).await;
    victim.kill();
    for caller in callers {
        within("a caller", caller).await.unwrap();
    }
    let dump = channel.dump();
    assert_eq!(dump.failed, 0);
    assert!(dump.sent_again > 0, "calls were in flight");
}

/// Two servers, one behind a proxy that can freeze it.
async fn frozen_pair() -> (TestServer, TestServer, TcpProxy, Set) {
    let (server, behind) = (TestServer::start(), TestServer::start());
    let proxy = TcpProxy::start(behind.address).await.unwrap();
    let set = Set::of([server.instance(), instance_at(proxy.address())]);
    (server, behind, proxy, set)
}

#[tokio::test]
async fn a_frozen_server_leaves_the_set_and_returns_when_it_thaws() {
    let (_server, behind, proxy, set) = frozen_pair().await;
    let channel = set
        .channel()
        .idempotent_methods([UNARY])
        .attempt_timeout(Duration::from_millis(300))
        .default_deadline(Duration::from_secs(10))
        .build()
        .unwrap();
    ready(&channel, 2).await;
    proxy.set(Fault::Hold(Direction::Both));
    let address = proxy.address().to_string();
    let frozen = || {
        let mut endpoints = channel.dump().endpoints.into_iter();
        endpoints.find(|e| *e.address == *address).unwrap()
    };
    assert_eq!(burst(&channel, 20).await.0, 0);
    let left = frozen();
    assert_eq!(left.sent_again, 3, "three time-outs raise the doubt");
    eventually("the doubt is confirmed", || {
        frozen().state != EndpointState::Ready
    })
    .await;
    assert_eq!(burst(&channel, 100).await.0, 0);
    assert_eq!(frozen().calls, left.calls, "it gets no calls");

    let before = behind.calls();
    proxy.set(Fault::Pass);
    ready(&channel, 2).await;
    assert_eq!(burst(&channel, 20).await.0, 0);
    assert!(behind.calls() > before, "it gets calls again");
}

#[tokio::test]
async fn a_call_on_a_connection_that_counted_as_silent_gets_its_answer_when_the_server_thaws() {
    let server = TestServer::answering(|seen| async move {
        let millis = seen.text.parse().unwrap();
        sleep(Duration::from_millis(millis)).await;
        Ok(Text::new("done"))
    });
    let proxy = TcpProxy::start(server.address).await.unwrap();
    let mut config = ChannelConfig::default();
    config.silent_after = 1;
    config.drain_timeout = Duration::from_secs(2);
    let channel = Set::of([instance_at(proxy.address())])
        .channel()
        .config(config)
        .build()
        .unwrap();
    ready(&channel, 1).await;
    let mut client = EchoClient::new(channel.clone());
    let slow = tokio::spawn(async move { client.say("5000").await });
    eventually("the slow call arrives", || server.calls() == 1).await;
    proxy.set(Fault::Hold(Direction::Both));
    let mut client = EchoClient::new(channel.clone());
    let is_ready = || channel.dump().endpoints[0].state == EndpointState::Ready;
    // What was under way when the proxy began to hold it may still be a sign of life for the first of them.
    let drop_calls = async {
        while is_ready() {
            let _ = timeout(Duration::from_millis(150), client.say("0")).await;
        }
    };
    within("the connection counts as silent", drop_calls).await;
    proxy.set(Fault::Pass);
    // Its answer comes later than the calls of a silent connection may take.
    let answer = within("the slow call", slow).await.unwrap();
    assert_eq!(answer.unwrap(), "done");
}

/// A channel to a server that never answers, behind a proxy, with a call under way on a connection that counts as silent.
async fn silent_with_a_call(
    config: ChannelConfig,
    keep_alive: sd_grpc::KeepAlive,
) -> (
    TestServer,
    TcpProxy,
    BalancedChannel,
    tokio::task::JoinHandle<Result<String, tonic::Status>>,
) {
    let server = TestServer::answering(|_| std::future::pending());
    let proxy = TcpProxy::start(server.address).await.unwrap();
    let set = Set::of([instance_at(proxy.address())]);
    let builder = set.channel().config(config).keep_alive(keep_alive);
    let channel = builder.build().unwrap();
    ready(&channel, 1).await;
    let mut client = EchoClient::new(channel.clone());
    let call = tokio::spawn(async move { client.say("hello").await });
    eventually("the call arrives", || server.calls() == 1).await;
    proxy.set(Fault::Hold(Direction::Both));
    let mut client = EchoClient::new(channel.clone());
    let drop_calls = async {
        while channel.dump().endpoints[0].state == EndpointState::Ready {
            let _ = timeout(Duration::from_millis(150), client.say("hello")).await;
        }
    };
    within("the connection counts as silent", drop_calls).await;
    (server, proxy, channel, call)
}

#[tokio::test]
async fn answers_to_pings_do_not_hold_up_the_end_of_a_connection_that_counted_as_silent() {
    let mut config = ChannelConfig::default();
    config.silent_after = 1;
    config.drain_timeout = Duration::from_secs(3);
    let keep_alive = sd_grpc::KeepAlive::new(Duration::from_secs(1), Duration::from_secs(10));
    let (_server, proxy, channel, call) = silent_with_a_call(config, keep_alive).await;
    proxy.set(Fault::Pass);
    // Keep-alive asks more often than the calls in flight have time to finish.
    within("the channel ends", channel.close()).await;
    let status = within("the call ends", call).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn keep_alive_ends_a_silent_connection_that_does_not_answer_later_either() {
    let mut config = ChannelConfig::default();
    config.silent_after = 1;
    config.drain_timeout = Duration::from_secs(600);
    // The connection counts as silent long before keep-alive itself asks.
    let keep_alive = sd_grpc::KeepAlive::new(Duration::from_secs(300), Duration::from_secs(2));
    let (_server, _proxy, _channel, call) = silent_with_a_call(config, keep_alive).await;
    let status = within("the call ends", call).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("silent"), "{status}");
}

#[tokio::test]
async fn calls_that_are_dropped_while_they_wait_show_that_a_server_is_silent() {
    let (_server, behind, proxy, set) = frozen_pair().await;
    let channel = set.channel().build().unwrap();
    ready(&channel, 2).await;
    let mut client = EchoClient::new(channel.clone());
    client.say("hello").await.unwrap();
    client.say("hello").await.unwrap();
    proxy.set(Fault::Hold(Direction::Both));
    let mut dropped = 0;
    for _ in 0..20 {
        let call = timeout(Duration::from_millis(200), client.say("hello"));
        dropped += usize::from(call.await.is_err());
    }
    assert_eq!(dropped, 3, "three show it");
    let before = behind.calls();
    proxy.set(Fault::Pass);
    ready(&channel, 2).await;
    assert_eq!(burst(&channel, 20).await.0, 0);
    assert!(behind.calls() > before, "it gets calls again");
}

#[tokio::test]
async fn pings_and_unknown_frames_do_not_keep_a_server_that_does_not_answer() {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    const UNKNOWN: [u8; 10] = [0, 0, 1, 0xbe, 0, 0, 0, 0, 0, 7];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let set = Set::of([instance_at(listener.local_addr().unwrap())]);
    let channel = set.channel().build().unwrap();
    let (stream, _) = within("a connection", listener.accept()).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    to.write_all(&SETTINGS).await.unwrap();
    let flood = async move {
        let mut ignored = vec![0; 4096];
        loop {
            let noise = [&PING[..], &UNKNOWN[..]].concat();
            tokio::select! {
                written = to.write_all(&noise) => written.unwrap(),
                _ = from.read(&mut ignored) => continue,
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let flood = tokio::spawn(flood);
    ready(&channel, 1).await;
    let mut client = EchoClient::new(channel.clone());
    for _ in 0..3 {
        let call = timeout(Duration::from_millis(150), client.say("hello"));
        call.await.unwrap_err();
    }
    within("another connection", listener.accept())
        .await
        .unwrap();
    flood.abort();
}

#[tokio::test]
async fn keep_alive_finds_a_dead_connection_without_calls() {
    let (_server, _behind, proxy, set) = frozen_pair().await;
    let keep_alive = sd_grpc::KeepAlive::new(Duration::from_secs(1), Duration::from_millis(200))
        .with_while_idle(true);
    let mut config = ChannelConfig::default();
    config.connect_timeout = Duration::from_millis(500);
    let channel = set
        .channel()
        .config(config)
        .keep_alive(keep_alive)
        .build()
        .unwrap();
    ready(&channel, 2).await;
    proxy.set(Fault::Hold(Direction::Both));
    eventually("the dead connection is found", || {
        let endpoints = channel.dump().endpoints;
        endpoints.iter().any(|e| e.state == EndpointState::Failing)
    })
    .await;
    proxy.set(Fault::Pass);
    ready(&channel, 2).await;
}

/// Reads what a client sends until it pings.
async fn until_ping(stream: &mut TcpStream) {
    const PREFACE: usize = 24;
    const PING: u8 = 6;
    stream.read_exact(&mut [0; PREFACE]).await.unwrap();
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).await.unwrap();
        let [a, b, c, kind, ..] = header;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        if kind == PING {
            return;
        }
    }
}

#[tokio::test]
async fn a_server_that_complains_about_pings_gets_half_as_many() {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let keep_alive = sd_grpc::KeepAlive::new(Duration::from_secs(1), Duration::from_secs(10))
        .with_while_idle(true);
    let set = Set::of([instance_at(listener.local_addr().unwrap())]);
    let _channel = set.channel().keep_alive(keep_alive).build().unwrap();
    let (mut stream, _) = within("a connection", listener.accept()).await.unwrap();
    stream.write_all(&SETTINGS).await.unwrap();
    within("a ping", until_ping(&mut stream)).await;
    // GOAWAY with ENHANCE_YOUR_CALM.
    let mut go_away = vec![0, 0, 22, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xb];
    go_away.extend(b"too_many_pings");
    stream.write_all(&go_away).await.unwrap();

    let (mut stream, _) = within("another one", listener.accept()).await.unwrap();
    let connected = Instant::now();
    stream.write_all(&SETTINGS).await.unwrap();
    within("a ping", until_ping(&mut stream)).await;
    let waited = connected.elapsed();
    assert!(waited > Duration::from_millis(1_900), "{waited:?}");
}
