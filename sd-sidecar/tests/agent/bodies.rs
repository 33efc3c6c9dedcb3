//! Bodies of requests that are too large or do not arrive.

use std::time::Duration;

use http::Method;
use sd_core::memory::Memory;
use sd_sidecar::daemon::api::ApiConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::{ALL, refused};
use crate::common::{TestAgent, TestConfig};

#[tokio::test]
async fn a_body_above_the_limit_is_refused_before_it_is_sent_and_while_it_is() {
    let agent = TestAgent::start().await;
    let limit = ApiConfig::default().most_body_bytes;
    let too_large = vec![b' '; limit + 1];
    for path in [ALL, "/register", "/drain", "/deregister"] {
        let reply = agent
            .client()
            .ask(Method::POST, path, too_large.clone())
            .await;
        let text = refused(&reply, 413, "too_large");
        assert_eq!(text, format!("the body is larger than {limit} bytes"));
        assert_eq!(reply.header("connection"), "close");
    }
    // One that is so long that it is not read at all.
    let mut stream = TcpStream::connect(agent.address).await.unwrap();
    let head = "POST /register HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    // One that does not say how long it is.
    let mut stream = TcpStream::connect(agent.address).await.unwrap();
    let head = "POST /v1/registrations HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
    let (mut reading, mut writing) = stream.split();
    let send = async {
        for _ in 0..=limit / 0x10000 {
            writing.write_all(&chunk).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    let (_, read) = tokio::join!(send, reading.read_exact(&mut answer));
    read.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let config = TestConfig::with_api(|api| api.body_within = Duration::from_millis(200));
    let agent = TestAgent::start_at(Memory::new().connect(), config).await;
    let mut stream = TcpStream::connect(agent.address).await.unwrap();
    let head = "POST /register HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
}
