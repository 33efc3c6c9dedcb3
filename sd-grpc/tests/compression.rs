//! Compressed messages over a channel.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::echo::{EchoClient, Text, texts};
use common::{Set, TestServer, ready};
use sd_grpc::BalancedChannel;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};

const ENCODINGS: [(CompressionEncoding, &str); 2] = [
    (CompressionEncoding::Gzip, "gzip"),
    (CompressionEncoding::Zstd, "zstd"),
];

const ENCODING: &str = "grpc-encoding";

/// More than tonic's limit for a message, 4 MiB, and a thousandth of it when it is compressed.
const LARGE: usize = 5 * 1024 * 1024;

/// A server that answers `large` with a large text, and else with what it got.
fn server() -> TestServer {
    TestServer::answering(|seen| async move {
        Ok(match seen.text.as_str() {
            "large" => Text::new("a".repeat(LARGE)),
            _ => Text::new(seen.text),
        })
    })
}

async fn channel(server: &TestServer) -> BalancedChannel {
    let channel = Set::of([server.instance()]).channel().build().unwrap();
    ready(&channel, 1).await;
    channel
}

#[tokio::test]
async fn messages_are_compressed_both_ways() {
    let server = server();
    let channel = channel(&server).await;
    for (encoding, name) in ENCODINGS {
        let mut client = EchoClient::new(channel.clone()).compressed(encoding);
        let text = "compressible ".repeat(1_000);
        let response = client.unary(Request::new(Text::new(&text))).await.unwrap();
        assert_eq!(response.metadata().get(ENCODING).unwrap(), name);
        assert_eq!(response.into_inner().text, text);
        let asked = server.metadata();
        assert_eq!(asked.last().unwrap().get(ENCODING).unwrap(), name);

        let words = texts(client.split("one two").await.unwrap()).await;
        assert_eq!(words.unwrap(), ["one", "two"]);
        let sent = futures_util::stream::iter(["a", "b"].map(Text::new));
        assert_eq!(client.join(sent).await.unwrap().text, "a b");
        let sent = futures_util::stream::iter(["a", "b"].map(Text::new));
        let echoed = texts(client.chat(sent).await.unwrap()).await;
        assert_eq!(echoed.unwrap(), ["a", "b"]);
    }
}

#[tokio::test]
async fn a_message_that_unpacks_beyond_the_limit_fails_its_call_and_no_other() {
    let server = server();
    let channel = channel(&server).await;
    for (encoding, _) in ENCODINGS {
        let mut client = EchoClient::new(channel.clone()).compressed(encoding);
        for text in ["large".to_owned(), "a".repeat(LARGE)] {
            let status = client.say(&text).await.unwrap_err();
            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        }
        assert_eq!(client.say("hello").await.unwrap(), "hello");
    }
    assert_eq!(server.accepted(), 1, "the connection was kept");
}
