//! etcd's JSON gateway, for what operators and other programs do there.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Asks for one thing, which must succeed.
pub(crate) async fn ask(server: SocketAddr, what: &str, request: &Value) -> Value {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let body = request.to_string();
    let head = format!(
        "POST /v3/{what} HTTP/1.0\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let request = head + &body;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 OK"), "{answer}");
    serde_json::from_str(body).unwrap()
}
