//! The HTTP proxy of the test kit counts requests and answers those that it is told to.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use sd_testing::{HttpProxy, HttpRequest, HttpRule, HttpState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// No wait in these tests is longer.
const SOON: Duration = Duration::from_secs(10);

/// Answers each request with its own first line, except those for `/wait`, which it never answers.
struct Server {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

async fn server() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut request = String::new();
                while !request.contains("\r\n\r\n") {
                    let mut chunk = [0; 1024];
                    let read = stream.read(&mut chunk).await?;
                    request += &String::from_utf8_lossy(&chunk[..read]);
                }
                let line = request.lines().next().unwrap_or_default();
                if line.contains("/wait") {
                    std::future::pending::<()>().await;
                }
                let answer = format!("HTTP/1.1 200 OK\r\nX-Index: 7\r\n\r\n{line}");
                stream.write_all(answer.as_bytes()).await
            });
        }
    });
    Server {
        address,
        _tasks: tasks,
    }
}

/// All that comes back for a request with a body.
async fn send(proxy: &HttpProxy, line: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // The proxy may have answered and hung up already.
    let _ = stream.write_all(body).await;
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}

async fn seen(proxy: &HttpProxy, condition: impl Fn(&[HttpRequest]) -> bool) -> Vec<HttpRequest> {
    timeout(SOON, proxy.seen(condition)).await.unwrap()
}

#[tokio::test]
async fn passes_what_no_rule_is_for_and_remembers_it() {
    let server = server().await;
    let proxy = HttpProxy::start(server.address).await.unwrap();
    proxy.set_rules([
        HttpRule::new("PUT", "/v1/kv/").answer(500, ""),
        HttpRule::new("GET", "/v2/").answer(500, ""),
    ]);
    let answer = send(&proxy, "GET /v1/kv/a?index=3", b"").await;
    assert_eq!(
        answer,
        "HTTP/1.1 200 OK\r\nX-Index: 7\r\n\r\nGET /v1/kv/a?index=3 HTTP/1.1"
    );
    let requests = proxy.requests();
    let [request] = &requests[..] else {
        panic!("{requests:?}");
    };
    assert_eq!(
        (&*request.method, &*request.path, &*request.query),
        ("GET", "/v1/kv/a", "index=3")
    );
    assert_eq!(request.state, HttpState::Answered(200));
}

#[tokio::test]
async fn answers_as_often_as_it_was_told_and_passes_the_rest() {
    let server = server().await;
    let proxy = HttpProxy::start(server.address).await.unwrap();
    let rule = HttpRule::new("", "/v1/").answer(429, "slow down");
    proxy.set_rules([rule.header("Retry-After", "3").times(2)]);
    // More than the buffers of the connection hold: the answer comes before the request is whole.
    let body = vec![b'a'; 4 << 20];
    for line in ["GET /v1/a", "PUT /v1/b"] {
        let answer = send(&proxy, line, &body).await;
        assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
        assert!(answer.contains("\r\nRetry-After: 3\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nslow down"), "{answer}");
    }
    let answer = send(&proxy, "GET /v1/a", b"").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let states: Vec<HttpState> = proxy.requests().iter().map(|seen| seen.state).collect();
    let expected = [429, 429, 200].map(HttpState::Answered);
    assert_eq!(states, expected);
}

#[tokio::test]
async fn replaces_headers_of_the_servers_answer() {
    let server = server().await;
    let proxy = HttpProxy::start(server.address).await.unwrap();
    proxy.set_rules([HttpRule::new("GET", "/").header("x-index", "2")]);
    let answer = send(&proxy, "GET /a", b"").await;
    assert_eq!(
        answer,
        "HTTP/1.1 200 OK\r\nx-index: 2\r\n\r\nGET /a HTTP/1.1"
    );
}

#[tokio::test]
async fn loses_the_answer_to_a_request_with_this_body_and_to_no_other() {
    let server = server().await;
    let proxy = HttpProxy::start(server.address).await.unwrap();
    proxy.set_rules([HttpRule::new("PUT", "/a").with_body("meant").lose_answer()]);
    assert_eq!(send(&proxy, "PUT /a", b"{\"it is\": \"meant\"}").await, "");
    for (line, body) in [("PUT /a", "another"), ("PUT /b", "meant")] {
        let answer = send(&proxy, line, body.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let states: Vec<HttpState> = proxy.requests().iter().map(|seen| seen.state).collect();
    let answered = HttpState::Answered(200);
    assert_eq!(states, [HttpState::Dropped, answered, answered]);
}

#[tokio::test]
async fn delays_an_answer() {
    const DELAY: Duration = Duration::from_millis(200);
    let server = server().await;
    let proxy = HttpProxy::start(server.address).await.unwrap();
    proxy.set_rules([HttpRule::new("GET", "/slow").delay(DELAY)]);
    let start = Instant::now();
    send(&proxy, "GET /slow", b"").await;
    assert!(start.elapsed() >= DELAY);
}

#[tokio::test]
async fn tells_requests_that_wait_from_those_that_were_dropped() {
    let server = server().await;
    let proxy = HttpProxy::start(server.address).await.unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let head = "GET /wait?index=3 HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let is = |state: HttpState| {
        move |requests: &[HttpRequest]| requests.iter().any(|seen| seen.state == state)
    };
    seen(&proxy, is(HttpState::Waiting)).await;
    drop(stream);
    seen(&proxy, is(HttpState::Dropped)).await;
}

#[tokio::test]
async fn hangs_up_when_the_server_is_gone_and_when_it_goes_itself() {
    let gone = server().await.address;
    let proxy = HttpProxy::start(gone).await.unwrap();
    assert_eq!(send(&proxy, "GET /a", b"").await, "");
    assert_eq!(proxy.requests()[0].state, HttpState::Dropped);

    let server = server().await;
    let proxy = HttpProxy::start(server.address).await.unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream
        .write_all(b"GET /wait HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    seen(&proxy, |requests| !requests.is_empty()).await;
    drop(proxy);
    let end = timeout(SOON, stream.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}
