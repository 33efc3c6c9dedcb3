//! Nothing outlives its owner: closing and dropping end calls, tasks and sockets.

mod common;

use std::time::Duration;

use common::echo::{EchoClient, Text};
use common::{Panicking, Set, TestServer, eventually, ready, within};
use sd_core::ErrorKind;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tonic::Code;

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

#[tokio::test]
async fn dropping_every_handle_ends_every_task_and_socket_within_a_second() {
    let servers = [TestServer::start(), TestServer::start()];
    let before = tasks();
    let unused = sd_testing::free_port().unwrap();
    let unused = common::instance_at(([127, 0, 0, 1], unused).into());
    let set = Set::of(servers.iter().map(TestServer::instance).chain([unused]));
    let channel = set.channel().build().unwrap();
    let mut client = EchoClient::new(channel.clone());
    for _ in 0..10 {
        client.say("hello").await.unwrap();
    }
    eventually("both are connected", || {
        servers.iter().all(|server| server.open() == 1)
    })
    .await;
    assert!(tasks() > before);
    drop(client);
    drop(channel);
    let dropped = Instant::now();
    eventually("tasks are back where they were", || tasks() == before).await;
    eventually("sockets are closed", || {
        servers.iter().all(|server| server.open() == 0)
    })
    .await;
    let took = dropped.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn a_stream_outlives_the_handle_it_came_from() {
    let server = TestServer::start();
    let before = tasks();
    let channel = Set::of([server.instance()]).channel().build().unwrap();
    let (say, said) = tokio::sync::mpsc::channel(1);
    let said = tokio_stream::wrappers::ReceiverStream::new(said);
    say.send(Text::new("a")).await.unwrap();
    let mut chat = EchoClient::new(channel).chat(said).await.unwrap();
    assert_eq!(chat.message().await.unwrap().unwrap().text, "a");
    say.send(Text::new("b")).await.unwrap();
    assert_eq!(chat.message().await.unwrap().unwrap().text, "b");
    drop((say, chat));
    eventually("tasks are back where they were", || tasks() == before).await;
    eventually("the socket is closed", || server.open() == 0).await;
}

#[tokio::test]
async fn a_dropped_call_leaves_its_place() {
    let server = TestServer::answering(|_| std::future::pending());
    let channel = Set::of([server.instance()]).channel().build().unwrap();
    ready(&channel, 1).await;
    let mut client = EchoClient::new(channel.clone());
    let call = tokio::spawn(async move { client.say("hello").await });
    eventually("the call arrives", || server.calls() == 1).await;
    assert_eq!(channel.dump().endpoints[0].in_flight, 1);
    call.abort();
    eventually("it left", || channel.dump().endpoints[0].in_flight == 0).await;
    assert_eq!((server.accepted(), server.open()), (1, 1));
}

#[tokio::test]
async fn closing_lets_calls_in_flight_end_and_refuses_new_ones() {
    let (release, wait) = tokio::sync::watch::channel(false);
    let server = TestServer::answering(move |_| {
        let mut wait = wait.clone();
        async move {
            wait.wait_for(|released| *released).await.unwrap();
            Ok(Text::new("done"))
        }
    });
    let before = tasks();
    let channel = Set::of([server.instance()]).channel().build().unwrap();
    ready(&channel, 1).await;
    let mut client = EchoClient::new(channel.clone());
    let call = tokio::spawn(async move { client.say("hello").await });
    eventually("the call arrives", || server.calls() == 1).await;
    let closing = {
        let channel = channel.clone();
        tokio::spawn(async move { channel.close().await })
    };
    eventually("it is closed", || {
        channel.dump().condition.contains("closed")
    })
    .await;
    let mut late = EchoClient::new(channel.clone());
    let status = late.say("hello").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("closed"), "{status}");
    assert!(!closing.is_finished());
    release.send(true).unwrap();
    assert_eq!(within("the call", call).await.unwrap().unwrap(), "done");
    within("closing", closing).await.unwrap();
    within("closing again", channel.close()).await;
    let error = channel
        .wait_until_ready(Duration::from_secs(1))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    eventually("the socket is closed", || server.open() == 0).await;
    eventually("tasks are back where they were", || tasks() == before).await;
}

#[tokio::test]
async fn a_channel_that_is_connecting_ends_as_well() {
    let before = tasks();
    let connector = |_: std::sync::Arc<sd_core::Instance>| {
        std::future::pending::<std::io::Result<tokio::net::TcpStream>>()
    };
    let set = Set::of([common::instance_at(([127, 0, 0, 1], 1).into())]);
    let channel = set.channel().connector(connector).build().unwrap();
    eventually("it connects", || channel.dump().endpoints.len() == 1).await;
    let mut client = EchoClient::new(channel.clone());
    let call = tokio::spawn(async move { client.say("hello").await });
    eventually("the call waits", || channel.dump().calls == 1).await;
    call.abort();
    drop(channel);
    drop(set);
    eventually("tasks are back where they were", || tasks() == before).await;
}

#[test]
fn a_channel_whose_runtime_has_ended_says_so_at_once() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let first = runtime();
    let (_server, channel) = first.block_on(async {
        let server = TestServer::start();
        let channel = Set::of([server.instance()]).channel().build().unwrap();
        ready(&channel, 1).await;
        (server, channel)
    });
    drop(first);
    runtime().block_on(async {
        for wait in [false, true] {
            let mut client = EchoClient::new(channel.clone());
            let mut request = tonic::Request::new(Text::new("hello"));
            request.extensions_mut().insert(sd_grpc::WaitForReady(wait));
            let before = Instant::now();
            let status = within("an answer", client.unary(request))
                .await
                .unwrap_err();
            assert_eq!(status.code(), Code::Unavailable);
            assert!(status.message().contains("runtime"), "{status}");
            assert!(before.elapsed() < Duration::from_secs(2), "at once");
        }
        let waiting = channel.wait_until_ready(Duration::from_secs(20));
        assert_eq!(waiting.await.unwrap_err().kind(), ErrorKind::Closed);
        assert!(channel.dump().condition.contains("runtime"));
        within("closing", channel.close()).await;
    });
}

#[test]
fn a_channel_whose_subscription_has_ended_says_so_at_once() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let first = runtime();
    let builder = first.block_on(async { Panicking::channel() });
    drop(first);
    runtime().block_on(async {
        let channel = builder.build().unwrap();
        eventually("it is known", || {
            channel.dump().condition.contains("no longer followed")
        })
        .await;
        let mut client = EchoClient::new(channel);
        let mut request = tonic::Request::new(Text::new("hello"));
        request.extensions_mut().insert(sd_grpc::WaitForReady(true));
        let status = within("an answer", client.unary(request))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains("no longer followed"), "{status}");
    });
}

/// It is asked again, so the channel goes on.
#[tokio::test]
async fn a_channel_whose_source_panics_says_why_it_knows_nothing() {
    let channel = Panicking::channel().build().unwrap();
    eventually("it is known", || {
        channel.dump().condition.contains("a bug in the source")
    })
    .await;
    assert!(!channel.dump().condition.contains("no longer followed"));
}
