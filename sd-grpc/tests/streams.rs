//! Calls that are given up, one at a time or many at once, and what is left for the others.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::echo::{EchoClient, Text};
use common::raw::Raw;
use common::{Set, TestServer, ready, within};
use futures_util::future::join_all;
use sd_grpc::{BalancedChannel, ChannelConfig, EndpointState};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

/// A call that gives up after `millis`.
fn impatient(millis: u64) -> Request<Text> {
    let mut request = Request::new(Text::new("never"));
    request.set_timeout(Duration::from_millis(millis));
    request
}

/// A server that answers no call but `hello`.
fn choosy() -> TestServer {
    TestServer::answering(|seen| async move {
        if seen.text != "hello" {
            std::future::pending::<()>().await;
        }
        Ok(Text::new("done"))
    })
}

#[tokio::test]
async fn calls_with_short_deadlines_take_a_slow_endpoint_from_no_other_caller() {
    let server = choosy();
    let channel = Set::of([server.instance()]).channel().build().unwrap();
    ready(&channel, 1).await;
    let mut client = EchoClient::new(channel.clone());
    for millis in [5, 5, 150] {
        let calls = (0..8).map(|_| {
            let mut client = client.clone();
            async move { client.unary(impatient(millis)).await.unwrap_err() }
        });
        join_all(calls).await;
        assert_eq!(channel.dump().endpoints[0].state, EndpointState::Ready);
    }
    client.say("hello").await.unwrap();
    assert_eq!(server.accepted(), 1, "the connection was kept");
}

#[tokio::test]
async fn slow_calls_end_no_connection_that_answers_a_ping() {
    let server = choosy();
    let mut config = ChannelConfig::default();
    config.drain_timeout = Duration::from_millis(100);
    let set = Set::of([server.instance()]);
    let channel = set.channel().config(config).build().unwrap();
    ready(&channel, 1).await;
    let mut client = EchoClient::new(channel.clone());
    let (say, said) = mpsc::channel(1);
    say.send(Text::new("a")).await.unwrap();
    let mut chat = client.chat(ReceiverStream::new(said)).await.unwrap();
    within("an echo", chat.message()).await.unwrap().unwrap();
    for _ in 0..12 {
        client.unary(impatient(150)).await.unwrap_err();
    }
    say.send(Text::new("b")).await.unwrap();
    within("an echo", chat.message()).await.unwrap().unwrap();
    assert_eq!(server.accepted(), 1, "the connection was kept");
}

/// A channel with one connection to a server that takes one call at a time.
async fn narrow(server: &TestServer) -> BalancedChannel {
    let mut config = ChannelConfig::default();
    config.max_connections = 1;
    let set = Set::of([server.instance()]);
    let channel = set.channel().config(config).build().unwrap();
    ready(&channel, 1).await;
    channel
}

fn one_at_a_time() -> TestServer {
    TestServer::configured(
        |_| async { Ok(Text::new("done")) },
        |server| server.max_concurrent_streams(1),
    )
}

#[tokio::test]
async fn a_dropped_response_ends_its_request_and_frees_the_place() {
    let server = one_at_a_time();
    let channel = narrow(&server).await;
    let mut client = EchoClient::new(channel.clone());
    let (say, said) = mpsc::channel(1);
    say.send(Text::new("a")).await.unwrap();
    let mut chat = client.chat(ReceiverStream::new(said)).await.unwrap();
    within("an echo", chat.message()).await.unwrap().unwrap();
    drop(chat);
    within("the end of the request", say.closed()).await;
    within("the next call", client.say("b")).await.unwrap();
}

#[tokio::test]
async fn a_deadline_in_the_middle_of_a_stream_ends_its_request_and_frees_the_place() {
    let server = one_at_a_time();
    let channel = narrow(&server).await;
    let mut client = EchoClient::new(channel.clone());
    let (say, said) = mpsc::channel(1);
    say.send(Text::new("a")).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(said));
    request.set_timeout(Duration::from_millis(300));
    let mut chat = client.chat_with(request).await.unwrap();
    within("an echo", chat.message()).await.unwrap().unwrap();
    let status = within("the deadline", chat.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    // The response is still held, and has ended nevertheless.
    within("the end of the request", say.closed()).await;
    within("the next call", client.say("b")).await.unwrap();
    drop(chat);
}

#[tokio::test]
async fn a_call_that_ends_before_its_headers_ends_its_request() {
    let server = Raw::start(
        &h2::server::Builder::new(),
        None,
        |request, respond| async {
            let _unanswered = (request, respond);
            std::future::pending::<()>().await;
        },
    )
    .await;
    let channel = Set::of([server.instance()]).channel().build().unwrap();
    for dropped in [false, true] {
        let (say, said) = mpsc::channel(1);
        say.send(Text::new("a")).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(said));
        if !dropped {
            request.set_timeout(Duration::from_millis(100));
        }
        let mut client = EchoClient::new(channel.clone());
        let call = tokio::spawn(async move { client.chat_with(request).await });
        within("the first message is taken", say.reserve())
            .await
            .unwrap();
        if dropped {
            call.abort();
        }
        within("the end of the request", say.closed()).await;
    }
}

#[tokio::test]
async fn responses_that_are_not_read_do_not_keep_others_from_their_answers() {
    let server = TestServer::start();
    let mut config = ChannelConfig::default();
    config.stream_window = 64 * 1024;
    config.connection_window = 64 * 1024;
    let set = Set::of([server.instance()]);
    let channel = set.channel().config(config).build().unwrap();
    ready(&channel, 1).await;
    let mut client = EchoClient::new(channel.clone());
    let words = vec!["x".repeat(1_000); 200].join(" ");
    let unread = within("headers", client.split(&words)).await.unwrap();
    // Until the window is full, calls still go to the connection, and their answers wait for it.
    let (mut answered, mut waiting) = (0, Vec::new());
    while answered < 20 {
        let mut client = EchoClient::new(channel.clone());
        let mut call = tokio::spawn(async move { client.say("hello").await });
        match timeout(Duration::from_millis(500), &mut call).await {
            Ok(answer) => {
                answer.unwrap().unwrap();
                answered += 1;
            }
            Err(_) => waiting.push(call),
        }
        assert!(waiting.len() < 10, "calls wait for a full connection");
    }
    assert_eq!(server.accepted(), 2, "a full connection gets company");
    let read = within("the messages", common::echo::texts(unread)).await;
    assert_eq!(read.unwrap().len(), 200);
    for call in waiting {
        within("a late answer", call).await.unwrap().unwrap();
    }
}
