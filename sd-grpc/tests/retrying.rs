//! What is sent again, where, how often and when; and what never is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::echo::{EchoClient, Text, UNARY};
use common::{Seen, Set, TestServer, eventually, ready, within};
use sd_grpc::{AttemptInfo, BalancedChannel, ChannelBuilder, ChannelConfig, Idempotent};
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

/// Fails the first `times` calls with `status`.
fn failing(times: usize, status: impl Fn() -> Status + Send + Sync + 'static) -> TestServer {
    let left = AtomicUsize::new(times);
    TestServer::answering(move |_: Seen| {
        let fails = left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            })
            .is_ok();
        let answer = if fails {
            Err(status())
        } else {
            Ok(Text::new("done"))
        };
        async move { answer }
    })
}

fn unavailable() -> Status {
    Status::unavailable("not now")
}

fn with_pushback(code: Code, pushback: &'static str) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
    Status::with_metadata(code, "not now", metadata)
}

async fn channel(
    servers: &[&TestServer],
    with: impl FnOnce(ChannelBuilder) -> ChannelBuilder,
) -> BalancedChannel {
    let set = Set::of(servers.iter().map(|server| server.instance()));
    let channel = with(set.channel()).build().unwrap();
    ready(&channel, servers.len()).await;
    channel
}

async fn call(channel: &BalancedChannel) -> Result<Response<Text>, Status> {
    let mut client = EchoClient::new(channel.clone());
    let mut request = Request::new(Text::new("hello"));
    request.extensions_mut().insert(Idempotent);
    within("a call", client.unary(request)).await
}

#[tokio::test]
async fn an_idempotent_call_moves_to_another_endpoint_and_says_so() {
    let bad = failing(usize::MAX, unavailable);
    let good = TestServer::start();
    let channel = channel(&[&bad, &good], |builder| builder).await;
    for _ in 0..20 {
        let response = call(&channel).await.unwrap();
        let info = response.extensions().get::<AttemptInfo>().unwrap();
        assert_eq!(info.endpoint(), good.address.to_string());
        assert!(info.attempts() <= 2, "{info:?}");
    }
    assert_eq!(good.calls(), 20);
    let previous: Vec<_> = good
        .metadata()
        .iter()
        .filter_map(|metadata| metadata.get("grpc-previous-rpc-attempts").cloned())
        .collect();
    assert!(
        previous.len() >= 5 && previous.iter().all(|value| value == "1"),
        "{previous:?}"
    );
    let dump = channel.dump();
    assert_eq!(dump.sent_again, bad.calls() as u64);
    assert_eq!(
        dump.endpoints.iter().map(|e| e.errors).sum::<u64>(),
        dump.sent_again
    );
}

#[tokio::test]
async fn a_method_can_be_marked_as_a_whole_and_others_are_tried_once() {
    let server = failing(2, unavailable);
    let marked = channel(&[&server], |builder| builder.idempotent_methods([UNARY])).await;
    EchoClient::new(marked).say("hello").await.unwrap();
    assert_eq!(server.calls(), 3);

    let server = failing(2, unavailable);
    let unmarked = channel(&[&server], |builder| builder).await;
    let status = EchoClient::new(unmarked).say("hello").await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "not now")
    );
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn attempts_are_limited() {
    let server = failing(usize::MAX, unavailable);
    let channel = channel(&[&server], |builder| builder).await;
    let status = call(&channel).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "not now")
    );
    assert_eq!(server.calls(), 5);
}

#[tokio::test]
async fn what_will_not_pass_is_not_sent_again() {
    for code in [
        Code::Internal,
        Code::Unknown,
        Code::Aborted,
        Code::Cancelled,
        Code::DeadlineExceeded,
        Code::ResourceExhausted,
        Code::NotFound,
    ] {
        let server = failing(1, move || Status::new(code, "no"));
        let channel = channel(&[&server], |builder| builder).await;
        assert_eq!(call(&channel).await.unwrap_err().code(), code);
        assert_eq!(server.calls(), 1, "{code:?}");
    }
}

#[tokio::test]
async fn pushback_is_obeyed() {
    let server = failing(1, || with_pushback(Code::ResourceExhausted, "300"));
    let patient = channel(&[&server], |builder| builder).await;
    let before = Instant::now();
    call(&patient).await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(300));

    for never in ["-1", "soon", ""] {
        let server = failing(1, move || with_pushback(Code::Unavailable, never));
        let channel = channel(&[&server], |builder| builder).await;
        call(&channel).await.unwrap_err();
        assert_eq!(server.calls(), 1, "{never:?}");
    }
}

#[tokio::test]
async fn retries_stop_while_most_calls_fail() {
    let server = failing(usize::MAX, unavailable);
    let mut config = ChannelConfig::default();
    config.retry_throttle.max_tokens = 20;
    config.retry_throttle.floor_per_second = 0;
    config.retry_first = Duration::from_millis(1);
    let channel = channel(&[&server], |builder| builder.config(config)).await;
    for _ in 0..50 {
        call(&channel).await.unwrap_err();
    }
    // Two calls of five attempts take half of the bucket.
    assert_eq!(server.calls(), 48 + 2 * 5);
}

#[tokio::test]
async fn calls_that_are_not_sent_again_use_up_none_of_the_retries_that_are_always_allowed() {
    let server = failing(2, unavailable);
    let mut config = ChannelConfig::default();
    config.retry_throttle.max_tokens = 1;
    config.retry_throttle.floor_per_second = 1;
    let channel = channel(&[&server], |builder| builder.config(config)).await;
    let mut client = EchoClient::new(channel.clone());
    client.say("hello").await.unwrap_err();
    call(&channel).await.unwrap();
    assert_eq!(server.calls(), 3);
}

#[tokio::test]
async fn one_deadline_covers_all_attempts_and_the_server_sees_it_shrink() {
    let server = failing(2, unavailable);
    let mut config = ChannelConfig::default();
    config.retry_first = Duration::from_millis(200);
    let channel = channel(&[&server], |builder| {
        builder
            .config(config)
            .default_deadline(Duration::from_secs(5))
    })
    .await;
    call(&channel).await.unwrap();
    let timeouts: Vec<u64> = server
        .metadata()
        .iter()
        .map(|metadata| {
            let text = metadata.get("grpc-timeout").unwrap().to_str().unwrap();
            text.strip_suffix('u').unwrap().parse().unwrap()
        })
        .collect();
    assert_eq!(timeouts.len(), 3);
    assert!(
        timeouts[0] <= 5_000_000 && timeouts.is_sorted_by(|a, b| a > b),
        "{timeouts:?}"
    );
}

#[tokio::test]
async fn the_deadline_ends_retries_and_silence() {
    let server = failing(usize::MAX, || with_pushback(Code::Unavailable, "60000"));
    let late = channel(&[&server], |builder| {
        builder.default_deadline(Duration::from_millis(300))
    })
    .await;
    // No attempt begins that would end too late: the caller gets the server's answer.
    assert_eq!(call(&late).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(server.calls(), 1);

    let mute = TestServer::answering(|_| std::future::pending());
    let channel = channel(&[&mute], |builder| builder).await;
    let mut request = Request::new(Text::new("hello"));
    request.set_timeout(Duration::from_millis(200));
    let mut client = EchoClient::new(channel.clone());
    let status = within("the deadline", client.unary(request))
        .await
        .unwrap_err();
    assert!(
        matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{status}"
    );
}

#[tokio::test]
async fn a_failed_call_names_endpoint_and_attempts() {
    let mut server = TestServer::answering(|_| std::future::pending());
    let channel = channel(&[&server], |builder| builder).await;
    let mut client = EchoClient::new(channel.clone());
    let call = tokio::spawn(async move { client.say("hello").await });
    eventually("the call arrives", || server.calls() == 1).await;
    server.kill();
    let status = within("the call", call).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let address = server.address.to_string();
    assert!(status.message().contains(&address), "{status}");
    let info = AttemptInfo::of(&status).unwrap();
    assert_eq!((info.endpoint(), info.attempts()), (&*address, 1));
    assert_eq!(server.calls(), 1);
    let dump = channel.dump();
    assert_eq!((dump.calls, dump.failed, dump.sent_again), (1, 1, 0));
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_moves_on_within_the_deadline() {
    let mute = TestServer::answering(|_| std::future::pending());
    let good = TestServer::start();
    let channel = channel(&[&mute, &good], |builder| {
        builder
            .attempt_timeout(Duration::from_millis(100))
            .default_deadline(Duration::from_secs(10))
    })
    .await;
    for _ in 0..4 {
        let before = Instant::now();
        call(&channel).await.unwrap();
        assert!(before.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(good.calls(), 4);
    assert!(mute.calls() >= 1);
}

#[tokio::test]
async fn streamed_requests_are_sent_again_from_their_beginning() {
    let mut server = TestServer::start();
    let other = TestServer::start();
    let channel = channel(&[&server, &other], |builder| {
        builder.idempotent_methods(["/test.Echo/Join"])
    })
    .await;
    // One call on each server, both in the middle of their request.
    let calls: Vec<_> = (0..2)
        .map(|_| {
            let (say, said) = tokio::sync::mpsc::channel(1);
            let said = tokio_stream::wrappers::ReceiverStream::new(said);
            let mut client = EchoClient::new(channel.clone());
            (say, tokio::spawn(async move { client.join(said).await }))
        })
        .collect();
    for (say, _) in &calls {
        say.send(Text::new("a")).await.unwrap();
        say.send(Text::new("b")).await.unwrap();
    }
    eventually("both are in flight", || {
        channel.dump().endpoints.iter().all(|e| e.in_flight == 1)
    })
    .await;
    server.kill();
    eventually("the call has moved", || channel.dump().sent_again == 1).await;
    for (say, call) in calls {
        say.send(Text::new("c")).await.unwrap();
        drop(say);
        let joined = within("a call", call).await.unwrap().unwrap();
        assert_eq!(joined.text, "a b c");
    }
}

#[tokio::test]
async fn a_server_that_takes_one_stream_gets_more_connections_but_not_too_many() {
    let at_once = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, peak) = (Arc::clone(&at_once), Arc::clone(&most));
    let server = TestServer::configured(
        move |_| {
            let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
            async move {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(Text::new("done"))
            }
        },
        |server| server.max_concurrent_streams(1),
    );
    let mut config = ChannelConfig::default();
    config.close_idle_after = Duration::from_millis(100);
    let channel = channel(&[&server], |builder| builder.config(config)).await;
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let mut client = EchoClient::new(channel.clone());
            tokio::spawn(async move {
                for _ in 0..20 {
                    client.say("hello").await.unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        within("a caller", caller).await.unwrap();
    }
    assert_eq!((server.calls(), most.load(Ordering::SeqCst)), (320, 4));
    assert_eq!(server.accepted(), 4);
    eventually("those not needed are closed", || server.open() == 1).await;
    EchoClient::new(channel).say("hello").await.unwrap();
    assert_eq!(server.accepted(), 4);
}

#[tokio::test]
async fn waiting_for_a_full_server_ends_with_the_deadline() {
    let server = TestServer::configured(
        |_| std::future::pending(),
        |server| server.max_concurrent_streams(1),
    );
    let mut config = ChannelConfig::default();
    config.max_connections = 1;
    let channel = channel(&[&server], |builder| builder.config(config)).await;
    let mut client = EchoClient::new(channel.clone());
    let first = tokio::spawn(async move { client.say("hello").await });
    eventually("the first call arrives", || server.calls() == 1).await;
    let mut request = Request::new(Text::new("hello"));
    request.set_timeout(Duration::from_millis(100));
    let mut client = EchoClient::new(channel.clone());
    let status = within("the deadline", client.unary(request))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("full"), "{status}");
    assert_eq!(server.calls(), 1);
    first.abort();
}
