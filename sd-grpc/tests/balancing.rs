//! Calls reach the right servers in the right shares.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;

use common::echo::{EchoClient, Text, texts};
use common::{SOON, Set, TestServer, eventually, ready};
use futures_util::stream;
use sd_grpc::{AttemptInfo, BalancedChannel};
use tonic::Request;

async fn channel(servers: &[TestServer]) -> BalancedChannel {
    let channel = Set::of(servers.iter().map(TestServer::instance))
        .channel()
        .build()
        .unwrap();
    ready(&channel, servers.len()).await;
    channel
}

#[tokio::test]
async fn unary_calls_are_spread_exactly_even_with_a_clone_for_each_request() {
    let servers = [
        TestServer::start(),
        TestServer::start(),
        TestServer::start(),
    ];
    let channel = channel(&servers).await;
    let mut answers = BTreeMap::new();
    for _ in 0..300 {
        let mut client = EchoClient::new(channel.clone());
        *answers
            .entry(client.say("hello").await.unwrap())
            .or_insert(0) += 1;
    }
    assert_eq!(
        answers.values().copied().collect::<Vec<_>>(),
        [100, 100, 100]
    );
    let dump = channel.dump();
    assert_eq!((dump.calls, dump.failed, dump.sent_again), (300, 0, 0));
    assert!(
        dump.endpoints
            .iter()
            .all(|e| e.calls == 100 && e.in_flight == 0)
    );
}

#[tokio::test]
async fn weights_share_the_calls_and_weight_zero_gets_none() {
    let servers = [
        TestServer::start(),
        TestServer::start(),
        TestServer::start(),
    ];
    let weights = [3, 1, 0];
    let instances = servers.iter().zip(weights);
    let set = Set::of(instances.map(|(server, weight)| server.instance().with_weight(weight)));
    let channel = set.channel().build().unwrap();
    ready(&channel, 3).await;
    let mut client = EchoClient::new(channel);
    for _ in 0..400 {
        client.say("hello").await.unwrap();
    }
    let calls = servers.each_ref().map(TestServer::calls);
    assert!(calls[0].abs_diff(300) <= 4, "{calls:?}");
    assert_eq!((calls[0] + calls[1], calls[2]), (400, 0));
}

#[tokio::test]
async fn streams_work_in_all_directions() {
    let servers = [TestServer::start()];
    let mut client = EchoClient::new(channel(&servers).await);
    let words = || stream::iter(["a", "b", "c"].map(Text::new));
    let split = client.split("a b c").await.unwrap();
    assert_eq!(texts(split).await.unwrap(), ["a", "b", "c"]);
    assert_eq!(client.join(words()).await.unwrap().text, "a b c");
    let chat = client.chat(words()).await.unwrap();
    assert_eq!(texts(chat).await.unwrap(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_conversation_can_go_back_and_forth_for_long() {
    let servers = [TestServer::start()];
    let channel = channel(&servers).await;
    let (say, said) = tokio::sync::mpsc::channel(1);
    let said = tokio_stream::wrappers::ReceiverStream::new(said);
    let mut client = EchoClient::new(channel.clone());
    say.send(Text::new("first")).await.unwrap();
    let mut chat = client.chat(said).await.unwrap();
    assert_eq!(chat.message().await.unwrap().unwrap().text, "first");
    for round in 0..200 {
        let text = format!("{round} {}", "x".repeat(1_000));
        say.send(Text::new(text.clone())).await.unwrap();
        assert_eq!(chat.message().await.unwrap().unwrap().text, text);
    }
    assert_eq!(channel.dump().endpoints[0].in_flight, 1);
    drop(say);
    assert!(chat.message().await.unwrap().is_none());
    eventually("the stream is no longer in flight", || {
        channel.dump().endpoints[0].in_flight == 0
    })
    .await;
}

#[tokio::test]
async fn the_response_tells_endpoint_and_attempts() {
    let servers = [TestServer::start()];
    let channel = channel(&servers).await;
    channel.wait_until_ready(SOON).await.unwrap();
    let mut client = EchoClient::new(channel);
    let response = client
        .unary(Request::new(Text::new("hello")))
        .await
        .unwrap();
    let info = response.extensions().get::<AttemptInfo>().unwrap();
    assert_eq!(info.endpoint(), servers[0].address.to_string());
    assert_eq!(info.attempts(), 1);
}

#[tokio::test]
async fn headers_are_like_tonics() {
    let servers = [TestServer::start()];
    let channel = Set::of([servers[0].instance()])
        .channel()
        .user_agent("tests/1")
        .build()
        .unwrap();
    let mut client = EchoClient::new(channel);
    let mut request = Request::new(Text::new("hello"));
    request
        .metadata_mut()
        .insert("user-agent", "caller/2".parse().unwrap());
    client.unary(request).await.unwrap();
    let metadata = &servers[0].metadata()[0];
    let ours = concat!("caller/2 tests/1 sd-grpc/", env!("CARGO_PKG_VERSION"));
    assert_eq!(metadata.get("user-agent").unwrap(), ours);
    assert!(metadata.get("grpc-timeout").is_none());
    assert!(metadata.get("grpc-previous-rpc-attempts").is_none());
}
