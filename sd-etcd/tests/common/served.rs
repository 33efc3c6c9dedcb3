//! What a server says that it has served.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How many watches stand at a server.
pub(crate) async fn watchers(address: SocketAddr) -> u64 {
    let answer = metrics(address).await;
    let mut lines = answer.lines();
    let count = lines.find_map(|line| line.strip_prefix("etcd_debugging_mvcc_watcher_total "));
    count.unwrap().parse().unwrap()
}

async fn metrics(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The answer to a newer version would come in chunks.
    let request = b"GET /metrics HTTP/1.0\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Calls that a server has begun to serve and messages that it has sent on streams, by method. What was not asked for is left out.
pub(crate) async fn served(address: SocketAddr) -> BTreeMap<String, u64> {
    let answer = metrics(address).await;
    let mut counts = BTreeMap::new();
    for line in answer.lines() {
        let Some((series, count)) = line.rsplit_once(' ') else {
            continue;
        };
        let method = series.split("grpc_method=\"").nth(1).unwrap_or_default();
        let method = method.split('"').next().unwrap_or_default();
        let kind = match series.split('{').next() {
            Some("grpc_server_started_total") => "begun",
            Some("grpc_server_msg_sent_total") if series.contains("bidi_stream") => "sent",
            _ => continue,
        };
        let count: f64 = count.parse().unwrap();
        if count > 0.0 {
            #[expect(clippy::cast_possible_truncation, reason = "a small count")]
            #[expect(clippy::cast_sign_loss, reason = "a count")]
            counts.insert(format!("{method} {kind}"), count as u64);
        }
    }
    counts
}

/// What came on top.
pub(crate) fn since(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let more = |(what, count): (&String, &u64)| {
        let more = count - before.get(what).unwrap_or(&0);
        (more > 0).then(|| (what.clone(), more))
    };
    after.iter().filter_map(more).collect()
}

pub(crate) fn counts(expected: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let count = |(what, count): &(&str, u64)| ((*what).to_owned(), *count);
    expected.iter().map(count).collect()
}
