//! Servers that answer as no etcd does: without an end, or to nothing.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use h2::server::SendResponse;
use http::{HeaderMap, Response};
use prost::Message;
use sd_core::ErrorKind;
use sd_etcd::EtcdConfig;
use sd_testing::required_env;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

/// How long a read of what never ends may take on a busy machine; the limit in the code is 60 s.
const ENDS_WITHIN: Duration = Duration::from_secs(90);

#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(int64, tag = "3")]
    limit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(uint64, tag = "1")]
    cluster_id: u64,
    #[prost(int64, tag = "3")]
    revision: i64,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
    #[prost(bool, tag = "3")]
    more: bool,
}

/// The keys of a page, given where it begins.
type Page = fn(&[u8]) -> Vec<Vec<u8>>;

/// Serves reads alone, and says each time that there is more.
async fn serve(page: Page) -> SocketAddr {
    serve_after(Duration::ZERO, page).await
}

/// The same, with a pause before each answer.
async fn serve_after(pause: Duration, page: Page) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_all(stream, pause, page));
        }
    });
    address
}

async fn answer_all(stream: TcpStream, pause: Duration, page: Page) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(async move {
            sleep(pause).await;
            answer(request, respond, page).await
        });
    }
}

async fn answer(
    request: http::Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    page: Page,
) -> Option<()> {
    let mut body = request.into_body();
    let mut asked = BytesMut::new();
    while let Some(part) = body.data().await {
        asked.extend_from_slice(&part.ok()?);
    }
    let asked = RangeRequest::decode(asked.get(5..)?).ok()?;
    let kvs = if asked.limit == 0 {
        Vec::new()
    } else {
        page(&asked.key)
    };
    let told = RangeResponse {
        header: Some(Header {
            cluster_id: 1,
            revision: 1,
        }),
        kvs: kvs.into_iter().map(|key| KeyValue { key }).collect(),
        more: true,
    };
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(told.encoded_len()).ok()?);
    told.encode(&mut frame).ok()?;
    let head = Response::builder().header("content-type", "application/grpc");
    let mut stream = respond.send_response(head.body(()).ok()?, false).ok()?;
    stream.send_data(frame.freeze(), false).ok()?;
    let mut end = HeaderMap::new();
    end.insert("grpc-status", "0".parse().ok()?);
    stream.send_trailers(end).ok()
}

/// 20 000 services after the first, far more than were asked for.
fn further(from: &[u8]) -> Vec<Vec<u8>> {
    let first = from.get(b"/services/".len()..).unwrap_or_default();
    let first = std::str::from_utf8(first.get(..12).unwrap_or_default());
    let first: u64 = first.ok().and_then(|first| first.parse().ok()).unwrap_or(0);
    (1..=20_000)
        .map(|n| format!("/services/{:012}/i", first + n).into_bytes())
        .collect()
}

/// A few keys below the first.
fn a_few(from: &[u8]) -> Vec<Vec<u8>> {
    let below = |name: &[u8]| [from, name, b"/i"].concat();
    vec![below(b"1"), below(b"2"), below(b"3")]
}

/// Each page comes in time, and there is always another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_always_has_more_to_send_and_takes_its_time_is_given_up() {
    const LIMIT: Duration = Duration::from_millis(700);
    let address = serve_after(Duration::from_millis(20), a_few).await;
    let config = EtcdConfig::new([format!("http://{address}")]).with_read_timeout(LIMIT);
    let registry = sd_etcd::connect(config).unwrap();
    let list = async { registry.list("greeter").await.map(drop) };
    let services = async { registry.services().await.map(drop) };
    for read in [list.boxed(), services.boxed()] {
        let since = Instant::now();
        let read = timeout(ENDS_WITHIN, read).await.unwrap();
        let error = read.unwrap_err();
        let report = error.report().to_string();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{report}");
        assert!(report.contains("more to send after 700ms"), "{report}");
        assert!(since.elapsed() >= LIMIT, "{report}");
    }
}

/// Knows no request, as a server of something else that speaks gRPC.
async fn serve_nothing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(refuse_all(stream));
        }
    });
    address
}

async fn refuse_all(stream: TcpStream) -> Option<()> {
    let mut connection = h2::server::handshake(stream).await.ok()?;
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let head = Response::builder().header("content-type", "application/grpc");
        let head = head.header("grpc-status", "12").body(()).ok()?;
        respond.send_response(head, true).ok()?;
    }
    Some(())
}

async fn refused(page: Page) -> String {
    let address = serve(page).await;
    let config = EtcdConfig::new([format!("http://{address}")]);
    let registry = sd_etcd::connect(config).unwrap();
    let services = timeout(ENDS_WITHIN, registry.services()).await.unwrap();
    let listed = timeout(ENDS_WITHIN, registry.list("greeter"))
        .await
        .unwrap();
    let error = services.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::Timeout),
        "{}",
        error.report()
    );
    assert!(listed.is_err());
    error.report().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_ever_more_to_send_is_given_up() {
    let report = refused(further).await;
    assert!(report.contains("keys"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_sends_the_same_page_for_ever_is_given_up() {
    let report = refused(|_| vec![b"/services/a/i".to_vec()]).await;
    assert!(report.contains("before those"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_more_and_sends_nothing_is_given_up() {
    let report = refused(|_| Vec::new()).await;
    assert!(report.contains("sends nothing"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn an_endpoint_that_is_no_etcd_is_left_for_one_that_is() {
    let etcd = required_env("SD_TEST_ETCD").unwrap();
    // Each begins at an endpoint of its own choice.
    for _ in 0..4 {
        let other = format!("http://{}", serve_nothing().await);
        let config = EtcdConfig::new([other.as_str(), etcd.as_str()]);
        let registry = sd_etcd::connect(config).unwrap();
        registry.services().await.unwrap();
        let alone = sd_etcd::connect(EtcdConfig::new([&other])).unwrap();
        let error = alone.services().await.unwrap_err();
        let report = error.report().to_string();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{report}");
        assert!(report.contains(&other), "{report}");
    }
}
