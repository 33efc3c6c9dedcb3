//! Which part of a response answers a call, so that it can no longer move.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::echo::{EchoClient, Text, UNARY, texts};
use common::scripted::{Scripted, Step, message};
use common::{Set, TestServer, eventually, ready, within};
use futures_util::stream;
use sd_core::Instance;
use sd_grpc::{
    AnsweredBy, AttemptInfo, BalancedChannel, ChannelBuilder, ChannelConfig, Idempotent,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

const SPLIT: &str = "/test.Echo/Split";
const JOIN: &str = "/test.Echo/Join";
const CHAT: &str = "/test.Echo/Chat";

const ATTEMPT: Duration = Duration::from_millis(400);

async fn channel<const N: usize>(
    instances: [Instance; N],
    with: impl FnOnce(ChannelBuilder) -> ChannelBuilder,
) -> BalancedChannel {
    let channel = with(Set::of(instances).channel()).build().unwrap();
    ready(&channel, N).await;
    channel
}

fn idempotent() -> Request<Text> {
    let mut request = Request::new(Text::new("hello"));
    request.extensions_mut().insert(Idempotent);
    request
}

async fn call(channel: &BalancedChannel) -> Result<Response<Text>, Status> {
    let mut client = EchoClient::new(channel.clone());
    within("a call", client.unary(idempotent())).await
}

/// Calls often enough for both servers to have their turn. The good one must answer all calls.
async fn moves_from(
    bad: &Scripted,
    with: impl FnOnce(ChannelBuilder) -> ChannelBuilder,
) -> BalancedChannel {
    let good = TestServer::start();
    let channel = channel([bad.instance(), good.instance()], with).await;
    for _ in 0..2 {
        let response = call(&channel).await.unwrap();
        let info = response.extensions().get::<AttemptInfo>().unwrap();
        assert_eq!(info.endpoint(), good.address.to_string());
    }
    assert_eq!(good.calls(), 2);
    assert!((1..=2).contains(&bad.calls()));
    let dump = channel.dump();
    assert_eq!((dump.failed, dump.sent_again), (0, bad.calls() as u64));
    channel
}

#[tokio::test]
async fn a_call_whose_server_falls_silent_after_its_headers_moves() {
    let mute = Scripted::start([Step::Headers]).await;
    moves_from(&mute, |builder| builder.attempt_timeout(ATTEMPT)).await;
}

#[tokio::test]
async fn a_call_whose_connection_closes_after_its_headers_moves() {
    let dying = Scripted::start([Step::Headers, Step::Close]).await;
    moves_from(&dying, |builder| builder).await;
    // A data frame without data is no beginning of a message.
    let empty = Step::Data(bytes::Bytes::new());
    let dying = Scripted::start([Step::Headers, empty, Step::Close]).await;
    moves_from(&dying, |builder| builder).await;
}

#[tokio::test]
async fn a_status_after_the_headers_counts_like_a_bare_one() {
    let status = Step::Trailers(Code::Unavailable, None);
    let refusing = Scripted::start([Step::Headers, status]).await;
    moves_from(&refusing, |builder| builder).await;

    // It is the caller's when no attempt is left, as are all that do not pass.
    let calls_of = |code, pushback| async move {
        let status = Step::Trailers(code, pushback);
        let server = Scripted::start([Step::Headers, status]).await;
        let mut config = ChannelConfig::default();
        config.retry_first = Duration::from_millis(1);
        let channel = channel([server.instance()], |builder| builder.config(config)).await;
        let status = call(&channel).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, "not now"));
        server.calls()
    };
    assert_eq!(calls_of(Code::Unavailable, None).await, 5);
    assert_eq!(calls_of(Code::ResourceExhausted, Some("1")).await, 5);
    assert_eq!(calls_of(Code::Unavailable, Some("-1")).await, 1);
    assert_eq!(calls_of(Code::ResourceExhausted, None).await, 1);
    assert_eq!(calls_of(Code::NotFound, None).await, 1);
}

#[tokio::test]
async fn a_call_that_is_answered_by_its_end_moves_until_then() {
    for last in [
        None,
        Some(Step::Close),
        Some(Step::Trailers(Code::Unavailable, None)),
    ] {
        let script = [Step::Headers, Step::message("not all")];
        let bad = Scripted::start(script.into_iter().chain(last)).await;
        moves_from(&bad, |builder| {
            builder
                .attempt_timeout(ATTEMPT)
                .answered_by(AnsweredBy::End, [UNARY])
        })
        .await;
    }
}

#[tokio::test]
async fn a_long_response_answers_a_call_before_its_end() {
    let long = "x".repeat(20_000);
    let gate = Arc::new(Semaphore::new(0));
    let messages = vec![Step::message(&long); 4];
    let script = [Step::Headers].into_iter().chain(messages);
    let rest = [
        Step::Wait(Arc::clone(&gate)),
        Step::message("end"),
        Step::Trailers(Code::Ok, None),
    ];
    let server = Scripted::start(script.chain(rest)).await;
    let channel = channel([server.instance()], |builder| builder).await;
    let mut request = idempotent();
    request.extensions_mut().insert(AnsweredBy::End);
    let mut client = EchoClient::new(channel);
    let answer = within("an answer", client.split_with(request)).await;
    gate.add_permits(1);
    let said = texts(answer.unwrap().into_inner());
    let said = within("the messages", said).await.unwrap();
    assert_eq!(said, [&*long, &*long, &*long, &*long, "end"]);
}

#[tokio::test]
async fn silence_after_headers_counts_as_silence() {
    let mute = Scripted::start([Step::Headers, Step::Freeze]).await;
    let mut config = ChannelConfig::default();
    config.silent_after = 1;
    let _channel = moves_from(&mute, |builder| {
        builder.config(config).attempt_timeout(2 * ATTEMPT)
    })
    .await;
    eventually("the connection is replaced", || mute.accepted() == 2).await;
}

#[tokio::test]
async fn the_deadline_covers_the_first_message() {
    let mute = Scripted::start([Step::Headers]).await;
    let channel = channel([mute.instance()], |builder| {
        builder.default_deadline(Duration::from_millis(300))
    })
    .await;
    let status = call(&channel).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let info = AttemptInfo::of(&status).unwrap();
    assert_eq!(info.endpoint(), mute.address.to_string());
    assert_eq!(mute.calls(), 1);
}

#[tokio::test]
async fn what_is_not_idempotent_is_not_sent_again_after_headers() {
    let dying = Scripted::start([Step::Headers, Step::Close]).await;
    let refusal = Step::Trailers(Code::Unavailable, None);
    let refusing = Scripted::start([Step::Headers, refusal]).await;
    for server in [dying, refusing] {
        let channel = channel([server.instance()], |builder| builder).await;
        let mut client = EchoClient::new(channel);
        let failed = within("a call", client.say("hello")).await.unwrap_err();
        assert_eq!(failed.code(), Code::Unavailable);
        assert_eq!(server.calls(), 1);
    }

    // It gets its headers at once.
    let gate = Arc::new(Semaphore::new(0));
    let late = Scripted::start(saying_late(&gate)).await;
    let channel = channel([late.instance()], |builder| {
        builder.attempt_timeout(ATTEMPT)
    })
    .await;
    let mut client = EchoClient::new(channel);
    let answer = within("the headers", client.split("hello")).await.unwrap();
    gate.add_permits(1);
    let said = within("the messages", texts(answer)).await.unwrap();
    assert_eq!(said, ["a", "b"]);
}

/// A script of a stream whose first message is late.
fn saying_late(gate: &Arc<Semaphore>) -> [Step; 5] {
    [
        Step::Headers,
        Step::Wait(Arc::clone(gate)),
        Step::message("a"),
        Step::message("b"),
        Step::Trailers(Code::Ok, None),
    ]
}

/// The headers must come at once, and the stream last longer than an attempt may.
async fn has_its_headers_at_once(
    request: Request<Text>,
    with: impl FnOnce(ChannelBuilder) -> ChannelBuilder,
) {
    let gate = Arc::new(Semaphore::new(0));
    let late = Scripted::start(saying_late(&gate)).await;
    let channel = channel([late.instance()], |builder| {
        with(builder.attempt_timeout(ATTEMPT))
    })
    .await;
    let mut client = EchoClient::new(channel);
    let answer = client.split_with(request);
    let answer = within("the headers", answer).await.unwrap();
    // It lasts on: there is nothing to wait for but time.
    sleep(2 * ATTEMPT).await;
    gate.add_permits(1);
    let said = within("the messages", texts(answer.into_inner()))
        .await
        .unwrap();
    assert_eq!(said, ["a", "b"]);
    assert_eq!(late.calls(), 1, "it was sent once");
}

#[tokio::test]
async fn a_stream_may_ask_for_its_headers_at_once_and_is_not_cut() {
    let mut request = idempotent();
    request.extensions_mut().insert(AnsweredBy::Headers);
    has_its_headers_at_once(request, |builder| builder).await;

    let request = Request::new(Text::new("hello"));
    has_its_headers_at_once(request, |builder| {
        builder
            .idempotent_methods([SPLIT])
            .answered_by(AnsweredBy::Headers, [SPLIT])
    })
    .await;
}

#[tokio::test]
async fn a_first_message_that_is_late_is_waited_for() {
    let gate = Arc::new(Semaphore::new(0));
    let late = Scripted::start(saying_late(&gate)).await;
    let channel = channel([late.instance()], |builder| builder).await;
    let mut client = EchoClient::new(channel);
    let answer = tokio::spawn(async move { client.split_with(idempotent()).await });
    eventually("the call arrives", || late.calls() == 1).await;
    gate.add_permits(1);
    let answer = within("the call", answer).await.unwrap().unwrap();
    let said = within("the messages", texts(answer.into_inner()))
        .await
        .unwrap();
    assert_eq!(said, ["a", "b"]);
}

#[tokio::test]
async fn the_last_attempt_is_answered_with_its_headers() {
    let gate = Arc::new(Semaphore::new(0));
    let late = Scripted::start(saying_late(&gate)).await;
    let mut config = ChannelConfig::default();
    config.max_attempts = 2;
    let channel = channel([late.instance()], |builder| {
        builder.config(config).attempt_timeout(ATTEMPT)
    })
    .await;
    let mut client = EchoClient::new(channel);
    let answer = client.split_with(idempotent());
    let answer = within("the headers", answer).await.unwrap();
    let info = answer.extensions().get::<AttemptInfo>().unwrap();
    assert_eq!(info.attempts(), 2);
    gate.add_permits(2);
    let said = within("the messages", texts(answer.into_inner()))
        .await
        .unwrap();
    assert_eq!(said, ["a", "b"]);
}

#[tokio::test]
async fn a_request_that_is_still_being_sent_gets_its_headers_at_once() {
    let server = TestServer::start();
    let channel = channel([server.instance()], |builder| {
        builder.idempotent_methods([CHAT]).attempt_timeout(ATTEMPT)
    })
    .await;
    let (say, said) = mpsc::channel(1);
    let mut client = EchoClient::new(channel.clone());
    let chat = client.chat(ReceiverStream::new(said));
    let mut chat = within("the headers", chat).await.unwrap();
    // It lasts on: there is nothing to wait for but time.
    sleep(2 * ATTEMPT).await;
    for text in ["a", "b"] {
        say.send(Text::new(text)).await.unwrap();
        let echo = within("an echo", chat.message()).await.unwrap().unwrap();
        assert_eq!(echo.text, text);
    }
    drop(say);
    let end = within("the end", chat.message()).await.unwrap();
    assert_eq!(end, None);
    assert_eq!(channel.dump().sent_again, 0);
}

#[tokio::test]
async fn a_streamed_request_that_is_sent_moves_whole() {
    let dying = Scripted::start([Step::Request, Step::Headers, Step::Close]).await;
    let good = TestServer::start();
    let instances = [dying.instance(), good.instance()];
    let channel = channel(instances, |builder| builder.idempotent_methods([JOIN])).await;
    for _ in 0..2 {
        let mut client = EchoClient::new(channel.clone());
        let request = stream::iter(["a", "b", "c"].map(Text::new));
        let joined = within("a call", client.join(request)).await.unwrap();
        assert_eq!(joined.text, "a b c");
    }
    assert!(dying.calls() >= 1);
}

#[tokio::test]
async fn nothing_is_lost_or_out_of_order_however_the_messages_are_cut() {
    let all = [message("a"), message("b"), message("c")].concat();
    for cut in 1..all.len() {
        let (first, second) = all.split_at(cut);
        let server = Scripted::start([
            Step::Headers,
            Step::Data(bytes::Bytes::new()),
            Step::Data(first.to_vec().into()),
            Step::Data(bytes::Bytes::new()),
            Step::Data(second.to_vec().into()),
            Step::Trailers(Code::Ok, None),
        ])
        .await;
        let channel = channel([server.instance()], |builder| builder).await;
        for by in [AnsweredBy::FirstMessage, AnsweredBy::End] {
            let mut request = idempotent();
            request.extensions_mut().insert(by);
            let mut client = EchoClient::new(channel.clone());
            let answer = within("an answer", client.split_with(request)).await;
            let said = texts(answer.unwrap().into_inner());
            let said = within("the messages", said).await.unwrap();
            assert_eq!(said, ["a", "b", "c"], "{cut}, {by:?}");
        }
    }

    // A response without a message is one too.
    let server = Scripted::start([Step::Headers, Step::Trailers(Code::Ok, None)]).await;
    let channel = channel([server.instance()], |builder| builder).await;
    let mut client = EchoClient::new(channel);
    let answer = client.split_with(idempotent());
    let answer = within("an answer", answer).await.unwrap();
    let said = within("the end", texts(answer.into_inner())).await.unwrap();
    assert_eq!(said, [""; 0]);
    assert_eq!(server.calls(), 1);
}
