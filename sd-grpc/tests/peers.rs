//! What servers and proxies do that speak HTTP/2 correctly and differ from ours, and what callers see of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::echo::{EchoClient, Text, UNARY, texts};
use common::raw::{End, Raw, answer, echo};
use common::{Set, TestServer, eventually, ready, within};
use futures_util::future::join_all;
use h2::Reason;
use h2::server::Builder;
use sd_grpc::{AttemptInfo, BalancedChannel, ChannelConfig, EndpointState, Idempotent};
use tokio::time::{Instant, sleep, timeout};
use tonic::codegen::http::{HeaderMap, HeaderValue, Response};
use tonic::{Code, Request};

fn settings() -> Builder {
    Builder::new()
}

/// What became of calls that were made by several callers one after another.
#[derive(Debug, Default)]
struct Ended {
    well: usize,
    failed: Vec<tonic::Status>,
}

async fn calls(channel: &BalancedChannel, callers: usize, each: usize, idempotent: bool) -> Ended {
    let callers = (0..callers).map(|_| {
        let mut client = EchoClient::new(channel.clone());
        tokio::spawn(async move {
            let mut ended = Ended::default();
            for _ in 0..each {
                let mut request = Request::new(Text::new("hello"));
                if idempotent {
                    request.extensions_mut().insert(Idempotent);
                }
                // A lost call would wait for ever: there is no deadline.
                match within("a call ends", client.unary(request)).await {
                    Ok(_) => ended.well += 1,
                    Err(status) => ended.failed.push(status),
                }
            }
            ended
        })
    });
    let all = join_all(callers.collect::<Vec<_>>()).await;
    all.into_iter().fold(Ended::default(), |mut sum, one| {
        let one = one.unwrap();
        sum.well += one.well;
        sum.failed.extend(one.failed);
        sum
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_limit_the_calls_of_a_connection_fail_no_call() {
    let limit = Some((50, End::Polite));
    let servers = [
        Raw::start(&settings(), limit, echo).await,
        Raw::start(&settings(), limit, echo).await,
    ];
    let channel = Set::of(servers.iter().map(Raw::instance))
        .channel()
        .build()
        .unwrap();
    ready(&channel, 2).await;
    // None of them is idempotent: what is sent again, no server can have begun.
    let ended = calls(&channel, 16, 250, false).await;
    assert!(ended.failed.is_empty(), "{:?}", ended.failed.first());
    assert_eq!(ended.well, 4_000);
    let opened: usize = servers.iter().map(Raw::accepted).sum();
    assert!(opened >= 20, "{opened} connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_of_closing_connections_loses_no_call() {
    let closing: usize =
        std::env::var("SD_CLOSING_CONNECTIONS").map_or(150, |count| count.parse().unwrap());
    let mut servers = Vec::new();
    for end in [End::Polite, End::Abrupt, End::Closed] {
        servers.push(Raw::start(&settings(), Some((20, end)), echo).await);
    }
    let channel = Set::of(servers.iter().map(Raw::instance))
        .channel()
        .build()
        .unwrap();
    ready(&channel, 3).await;
    let closed = || servers.iter().map(Raw::accepted).sum::<usize>();
    let (mut well, mut failed) = (0, 0);
    let began = Instant::now();
    while closed() < closing {
        let ended = calls(&channel, 24, 25, false).await;
        well += ended.well;
        failed += ended.failed.len();
        for status in ended.failed {
            assert_eq!(status.code(), Code::Unavailable, "{status}");
        }
    }
    println!(
        "{} connections, {well} calls answered, {failed} cut, in {:?}",
        closed(),
        began.elapsed()
    );
    assert!(well > 0);
    eventually("no call is left", || {
        channel
            .dump()
            .endpoints
            .iter()
            .all(|one| one.in_flight == 0)
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_said_goodbye_is_replaced_at_once() {
    let server = Raw::start(&settings(), Some((1, End::Polite)), echo).await;
    let channel = Set::of([server.instance()]).channel().build().unwrap();
    ready(&channel, 1).await;
    let mut client = EchoClient::new(channel.clone());
    let began = Instant::now();
    for _ in 0..40 {
        within("an answer", client.say("hello")).await.unwrap();
    }
    // With a delay of up to 200 ms before each, and more after each, this would take minutes.
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert!(server.accepted() >= 40);
}

#[tokio::test]
async fn a_server_that_says_goodbye_at_once_is_not_flooded() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let _channel = Set::of([common::instance_at(address)])
        .channel()
        .build()
        .unwrap();
    let began = Instant::now();
    let mut accepted = 0;
    while let Ok(stream) = timeout(
        Duration::from_secs(2).saturating_sub(began.elapsed()),
        listener.accept(),
    )
    .await
    {
        let (stream, _) = stream.unwrap();
        accepted += 1;
        tokio::spawn(async move {
            if let Ok(mut connection) = settings().handshake::<_, Bytes>(stream).await {
                // Long enough to count as connected.
                let _ = timeout(Duration::from_millis(20), connection.accept()).await;
                connection.abrupt_shutdown(Reason::NO_ERROR);
                while connection.accept().await.is_some() {}
            }
        });
    }
    assert!((1..40).contains(&accepted), "{accepted} connects");
}

#[tokio::test]
async fn many_cancelled_calls_leave_a_long_one_alone() {
    let mut settings = settings();
    // Of the server we want only that it bears it.
    settings.max_pending_accept_reset_streams(100_000);
    settings.max_local_error_reset_streams(None);
    let server = Raw::start(&settings, None, |_, mut respond| async move {
        let response = Response::builder()
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        if let Ok(mut stream) = respond.send_response(response, false) {
            // Goes on after the client has cancelled.
            for _ in 0..3 {
                let _ = stream.send_data(common::scripted::message("more"), false);
                tokio::task::yield_now().await;
            }
            let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
        }
    })
    .await;
    let channel = Set::of([server.instance()]).channel().build().unwrap();
    ready(&channel, 1).await;
    let mut long = EchoClient::new(channel.clone())
        .split("hello")
        .await
        .unwrap();
    for batch in 1..=100 {
        let batch_of_calls: Vec<_> = (0..100)
            .map(|_| {
                let mut client = EchoClient::new(channel.clone());
                tokio::spawn(async move { client.split("hello").await })
            })
            .collect();
        eventually("they are with the server", || server.calls() > batch * 100).await;
        batch_of_calls
            .iter()
            .for_each(tokio::task::JoinHandle::abort);
    }
    within("a message", long.message()).await.unwrap().unwrap();
    eventually("only the long one is left", || {
        channel.dump().endpoints[0].in_flight == 1
    })
    .await;
    assert_eq!(server.accepted(), 1, "the connection survived");
}

/// Trailers with a status and as many bytes beside it.
fn large_trailers(bytes: usize) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", (Code::FailedPrecondition as i32).into());
    for part in 0..bytes.div_ceil(10_000) {
        let name = format!("x-detail-{part}").parse::<tonic::codegen::http::HeaderName>();
        let value = HeaderValue::from_str(&"x".repeat(10_000)).unwrap();
        trailers.insert(name.unwrap(), value);
    }
    trailers
}

/// A server whose answers are headers alone, with as many bytes.
async fn with_large_status(bytes: usize) -> Raw {
    Raw::start(&settings(), None, move |_, mut respond| async move {
        let mut response = Response::builder()
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        response.headers_mut().extend(large_trailers(bytes));
        let _ = respond.send_response(response, true);
    })
    .await
}

#[tokio::test]
async fn a_status_of_100_kb_arrives_whole() {
    let server = with_large_status(100_000).await;
    let channel = Set::of([server.instance()]).channel().build().unwrap();
    let mut client = EchoClient::new(channel);
    let status = within("an answer", client.say("hello")).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.metadata().len(), 11);
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn an_answer_beyond_the_limit_fails_its_call_and_no_other() {
    let mut config = ChannelConfig::default();
    config.max_header_list_size = 16 * 1024;
    config.idempotent_methods.insert(UNARY.to_owned());
    // Up to four times the limit h2 drops the answer, beyond that the connection.
    for (bytes, connections) in [(50_000, 1), (400_000, 2)] {
        let large = with_large_status(bytes).await;
        let others = [TestServer::start(), TestServer::start()];
        let set = Set::of([large.instance()]);
        let channel = set.channel().config(config.clone()).build().unwrap();
        ready(&channel, 1).await;
        let mut client = EchoClient::new(channel.clone());
        set.set([large.instance(), others[0].instance(), others[1].instance()]);
        ready(&channel, 3).await;
        let mut failures = 0;
        for _ in 0..9 {
            if let Err(status) = within("an answer", client.say("hello")).await {
                assert_eq!(status.code(), Code::Internal, "{status}");
                assert!(
                    status.message().contains("max_header_list_size"),
                    "{status}"
                );
                assert_eq!(AttemptInfo::of(&status).unwrap().attempts(), 1);
                failures += 1;
            }
        }
        assert_eq!(failures, large.calls(), "it was tried nowhere else");
        assert!(failures >= 1);
        let opened = large.accepted();
        assert!(
            opened >= connections && opened <= 4,
            "{bytes}: {opened} connections"
        );
    }
}

#[tokio::test]
async fn headers_beyond_the_servers_limit_are_answered_here() {
    let mut settings = settings();
    settings.max_header_list_size(8 * 1024);
    let server = Raw::start(&settings, None, echo).await;
    let channel = Set::of([server.instance()]).channel().build().unwrap();
    ready(&channel, 1).await;
    let mut client = EchoClient::new(channel.clone());
    let mut request = Request::new(Text::new("hello"));
    let value = "x".repeat(8 * 1024).parse().unwrap();
    request.metadata_mut().insert("x-large", value);
    request.extensions_mut().insert(Idempotent);
    let status = within("an answer", client.unary(request))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("8192"), "{status}");
    client.say("hello").await.unwrap();
    assert_eq!((server.calls(), server.accepted()), (1, 1));
}

#[tokio::test]
async fn an_error_page_of_a_proxy_is_the_status_that_grpc_makes_of_it() {
    for (http, code) in [
        (404, Code::Unimplemented),
        (413, Code::Unknown),
        (200, Code::Unknown),
    ] {
        let proxy = Raw::start(&settings(), None, move |_, mut respond| async move {
            let response = Response::builder()
                .status(http)
                .header("content-type", "text/html")
                .body(())
                .unwrap();
            if let Ok(mut stream) = respond.send_response(response, false) {
                let _ = stream.send_data(Bytes::from_static(b"<html>no</html>"), true);
            }
        })
        .await;
        let channel = Set::of([proxy.instance()]).channel().build().unwrap();
        let mut client = EchoClient::new(channel);
        let status = within("an answer", client.say("hello")).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(&http.to_string()), "{status}");
        assert!(AttemptInfo::of(&status).is_some());
    }
}

#[tokio::test]
async fn an_idempotent_call_moves_on_from_a_proxy_without_a_server() {
    let proxy = Raw::start(&settings(), None, |_, mut respond| async move {
        let response = Response::builder().status(503).body(()).unwrap();
        if let Ok(mut stream) = respond.send_response(response, false) {
            let _ = stream.send_data(Bytes::from_static(b"no healthy upstream"), true);
        }
    })
    .await;
    let server = TestServer::start();
    let set = Set::of([proxy.instance(), server.instance()]);
    let channel = set.channel().idempotent_methods([UNARY]).build().unwrap();
    ready(&channel, 2).await;
    let mut client = EchoClient::new(channel);
    for _ in 0..10 {
        within("an answer", client.say("hello")).await.unwrap();
    }
    assert!(proxy.calls() > 0);
}

#[tokio::test]
async fn details_that_are_not_base64_are_dropped_and_harm_nothing() {
    let server = Raw::start(&settings(), None, |request, respond| async move {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", (Code::Aborted as i32).into());
        let details = HeaderValue::from_static("%%% no base64 %%%");
        trailers.insert("grpc-status-details-bin", details);
        if request.uri().path() == UNARY {
            let mut respond = respond;
            let mut response = Response::builder()
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            response.headers_mut().extend(trailers);
            let _ = respond.send_response(response, true);
        } else {
            answer(respond, trailers);
        }
    })
    .await;
    let channel = Set::of([server.instance()]).channel().build().unwrap();
    let mut client = EchoClient::new(channel);
    let bare = within("an answer", client.say("hello")).await.unwrap_err();
    assert_eq!(bare.code(), Code::Aborted);
    let stream = client.split("hello").await.unwrap();
    let after_a_message = texts(stream).await.unwrap_err();
    assert_eq!(after_a_message.code(), Code::Aborted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_passed_is_deadline_exceeded_whichever_side_notices_first() {
    // tonic's server ends such a call with CANCELLED, grpc-go's with RST_STREAM(CANCEL).
    let tonic = TestServer::answering(|_| std::future::pending());
    let go = Raw::start(&settings(), None, |request, mut respond| async move {
        let timeout = request.headers()["grpc-timeout"]
            .to_str()
            .unwrap()
            .to_owned();
        let micros = timeout.strip_suffix('u').unwrap().parse().unwrap();
        sleep(Duration::from_micros(micros)).await;
        respond.send_reset(Reason::CANCEL);
    })
    .await;
    for instance in [tonic.instance(), go.instance()] {
        let channel = Set::of([instance])
            .channel()
            .default_deadline(Duration::from_millis(40))
            .build()
            .unwrap();
        ready(&channel, 1).await;
        for _ in 0..8 {
            let ended = calls(&channel, 25, 1, false).await;
            for status in ended.failed {
                assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
            }
        }
    }
}

#[tokio::test]
async fn the_attempt_is_known_of_every_call_that_the_server_failed() {
    let server = Raw::start(&settings(), None, |request, mut respond| async move {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", (Code::NotFound as i32).into());
        if request.uri().path() == UNARY {
            let response = Response::builder().header("content-type", "application/grpc");
            let mut response = response.body(()).unwrap();
            response.headers_mut().extend(trailers);
            let _ = respond.send_response(response, true);
        } else {
            answer(respond, trailers);
        }
    })
    .await;
    let channel = Set::of([server.instance()]).channel().build().unwrap();
    let mut client = EchoClient::new(channel.clone());
    let bare = within("an answer", client.say("hello")).await.unwrap_err();
    let stream = client.split("hello").await.unwrap();
    let after_a_message = texts(stream).await.unwrap_err();
    for status in [bare, after_a_message] {
        assert_eq!(status.code(), Code::NotFound);
        let info = AttemptInfo::of(&status).unwrap();
        assert_eq!(
            (info.attempts(), info.endpoint()),
            (1, &*server.address.to_string())
        );
    }
    assert_eq!(channel.dump().failed, 0, "a server answered");
}

#[tokio::test]
async fn what_a_server_says_in_its_goodbye_reaches_the_calls_that_it_cuts() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let channel = Set::of([common::instance_at(address)])
        .channel()
        .build()
        .unwrap();
    let mut client = EchoClient::new(channel);
    let call = tokio::spawn(async move { client.say("hello").await });
    let (stream, _) = within("a connection", listener.accept()).await.unwrap();
    let mut connection = settings().handshake::<_, Bytes>(stream).await.unwrap();
    let _call = within("a call", connection.accept())
        .await
        .unwrap()
        .unwrap();
    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    while connection.accept().await.is_some() {}
    let status = within("an answer", call).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("GOAWAY"), "{status}");
}

#[tokio::test]
async fn a_server_that_speaks_another_language_is_named() {
    const ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 70];
    for (greeting, language) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "HTTP/1"),
        (ALERT, "TLS"),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                // The client may be gone.
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, greeting).await;
                tokio::spawn(async move {
                    let mut all = Vec::new();
                    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut all).await;
                });
            }
        });
        let channel = Set::of([common::instance_at(address)])
            .channel()
            .build()
            .unwrap();
        let mut client = EchoClient::new(channel);
        let status = within("an answer", client.say("hello")).await.unwrap_err();
        assert!(status.message().contains(language), "{status}");
        server.abort();
    }
}

#[tokio::test]
async fn an_endpoint_that_turns_every_call_away_is_ejected_and_tried_again() {
    let bad = Raw::start(&settings(), None, |_, mut respond| async move {
        respond.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let good = [
        TestServer::start(),
        TestServer::start(),
        TestServer::start(),
    ];
    let set = Set::of(
        good.iter()
            .map(TestServer::instance)
            .chain([bad.instance()]),
    );
    let channel = set.channel().build().unwrap();
    ready(&channel, 4).await;
    let label = bad.address.to_string();
    let state = || {
        let endpoints = channel.dump().endpoints.into_iter();
        endpoints
            .clone()
            .find(|one| *one.address == *label)
            .unwrap()
            .state
    };
    let ended = calls(&channel, 1, 40, false).await;
    assert_eq!(ended.failed.len(), 5, "five calls in a row show it");
    eventually("it is ejected", || state() == EndpointState::Ejected).await;
    let ended = calls(&channel, 1, 40, false).await;
    assert!(ended.failed.is_empty(), "{:?}", ended.failed.first());
    eventually("it is tried again", || state() == EndpointState::Ready).await;
    let ended = calls(&channel, 1, 40, false).await;
    assert_eq!(
        ended.failed.len(),
        1,
        "one more call shows that it is no better"
    );
}

#[tokio::test]
async fn of_two_endpoints_that_turn_calls_away_one_stays() {
    let refuse = |_, mut respond: h2::server::SendResponse<Bytes>| async move {
        respond.send_reset(Reason::INTERNAL_ERROR);
    };
    let servers = [
        Raw::start(&settings(), None, refuse).await,
        Raw::start(&settings(), None, refuse).await,
    ];
    let channel = Set::of(servers.iter().map(Raw::instance))
        .channel()
        .build()
        .unwrap();
    ready(&channel, 2).await;
    let ended = calls(&channel, 1, 60, false).await;
    for status in ended.failed {
        assert_eq!(status.code(), Code::Internal, "it was called: {status}");
    }
}

#[tokio::test]
async fn an_endpoint_that_turns_calls_away_after_its_headers_is_ejected() {
    let bad = Raw::start(&settings(), None, |_, respond| async move {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", (Code::Unavailable as i32).into());
        answer(respond, trailers);
    })
    .await;
    let good = TestServer::start();
    let set = Set::of([bad.instance(), good.instance()]);
    let channel = set.channel().build().unwrap();
    ready(&channel, 2).await;
    let ended = calls(&channel, 1, 40, false).await;
    assert_eq!(ended.failed.len(), 5, "five calls in a row show it");
    let label = bad.address.to_string();
    eventually("it is ejected", || {
        let mut endpoints = channel.dump().endpoints.into_iter();
        let bad = endpoints.find(|one| *one.address == *label).unwrap();
        bad.state == EndpointState::Ejected
    })
    .await;
}

#[tokio::test]
async fn an_ejected_endpoint_gets_calls_again_when_the_others_are_gone() {
    let bad = Raw::start(&settings(), None, |_, mut respond| async move {
        respond.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let good = TestServer::start();
    let mut config = ChannelConfig::default();
    config.connect_wait = Duration::from_millis(100);
    let set = Set::of([bad.instance(), good.instance()]);
    let channel = set.channel().config(config).build().unwrap();
    ready(&channel, 2).await;
    let state = || {
        let label = bad.address.to_string();
        let mut endpoints = channel.dump().endpoints.into_iter();
        endpoints.find(|one| *one.address == *label).unwrap().state
    };
    let ended = calls(&channel, 1, 40, false).await;
    assert_eq!(ended.failed.len(), 5, "five calls in a row show it");
    eventually("it is ejected", || state() == EndpointState::Ejected).await;
    let first_end = Instant::now() + Duration::from_secs(1);

    set.set([bad.instance()]);
    eventually("the good one is gone", || {
        channel.dump().endpoints.len() == 1
    })
    .await;
    let ended = calls(&channel, 1, 1, false).await;
    assert_eq!(ended.failed.len(), 1);
    let status = &ended.failed[0];
    assert_eq!(status.code(), Code::Internal, "it was called: {status}");

    // The second time lasts twice as long, and does not end with the first one's.
    set.set([bad.instance(), good.instance()]);
    ready(&channel, 2).await;
    let second = Instant::now();
    let ended = calls(&channel, 1, 40, false).await;
    assert_eq!(ended.failed.len(), 1, "one more call shows it");
    eventually("it is ejected", || state() == EndpointState::Ejected).await;
    tokio::time::sleep_until(first_end + Duration::from_millis(100)).await;
    let is_ejected = state() == EndpointState::Ejected;
    // On a slow machine the second time may be over as well.
    assert!(is_ejected || second.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn one_bad_endpoint_of_four_fails_no_idempotent_call_however_many_there_are() {
    let bad = TestServer::answering(|_| async { Err(tonic::Status::unavailable("not now")) });
    let good = [
        TestServer::start(),
        TestServer::start(),
        TestServer::start(),
    ];
    let set = Set::of(
        good.iter()
            .map(TestServer::instance)
            .chain([bad.instance()]),
    );
    let mut config = ChannelConfig::default();
    config.retry_first = Duration::from_millis(1);
    let channel = set.channel().config(config).build().unwrap();
    ready(&channel, 4).await;
    // Without ejection, a quarter of them would need a retry, and retries end after a hundred failures.
    let ended = calls(&channel, 4, 500, true).await;
    assert!(ended.failed.is_empty(), "{:?}", ended.failed.first());
    assert!(bad.calls() < 100, "{} calls", bad.calls());
}

#[tokio::test]
async fn a_request_of_which_nothing_was_written_is_sent_elsewhere() {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    // No more than the client's preface.
    const ROOM: usize = 24;
    let (ours, theirs) = tokio::io::duplex(ROOM);
    let ours = std::sync::Mutex::new(Some(ours));
    let server = TestServer::start();
    let real = server.address;
    let blocked = common::instance_at(([127, 0, 0, 1], 1).into());
    let connector = move |instance: std::sync::Arc<sd_core::Instance>| {
        let ours = (instance.endpoint().to_string() != real.to_string())
            .then(|| ours.lock().unwrap().take());
        async move {
            match ours {
                Some(Some(ours)) => Ok(Box::new(ours) as sd_grpc::BoxedIo),
                Some(None) => Err(std::io::ErrorKind::ConnectionRefused.into()),
                None => {
                    let stream = tokio::net::TcpStream::connect(real).await?;
                    Ok(Box::new(stream) as sd_grpc::BoxedIo)
                }
            }
        }
    };
    let set = Set::of([blocked.clone()]);
    let channel = set.channel().connector(connector).build().unwrap();
    let mut theirs = theirs;
    tokio::io::AsyncWriteExt::write_all(&mut theirs, &SETTINGS)
        .await
        .unwrap();
    ready(&channel, 1).await;
    let mut client = EchoClient::new(channel.clone());
    let call = tokio::spawn(async move { client.say("hello").await });
    eventually("the call is given to the connection", || {
        channel.dump().endpoints[0].in_flight == 1
    })
    .await;
    set.set([blocked, server.instance()]);
    ready(&channel, 2).await;
    drop(theirs);
    let answer = within("an answer", call).await.unwrap().unwrap();
    assert_eq!(answer, real.to_string());
    let dump = channel.dump();
    assert_eq!((dump.failed, dump.sent_again), (0, 1));
}
