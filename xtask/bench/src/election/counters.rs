//! What the server counts: requests and messages, by method.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Result;

/// Requests and messages since the server's start.
#[derive(Debug)]
pub(super) struct Counters(BTreeMap<String, f64>);

impl Counters {
    pub(super) async fn read(address: &str) -> Result<Self> {
        let host = address.strip_prefix("http://").unwrap_or(address);
        let mut stream = TcpStream::connect(host).await?;
        let request = format!("GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(Self(parse(&answer)))
    }

    /// How many requests of each method were begun since `before`; those without are left out.
    pub(super) fn requests_since(&self, before: &Self) -> BTreeMap<String, f64> {
        let methods = self.0.iter().filter_map(|(name, count)| {
            let method = name.strip_prefix("grpc_server_started_total ")?;
            let more = count - before.0.get(name).unwrap_or(&0.0);
            (more > 0.0).then(|| (method.to_owned(), more))
        });
        methods.collect()
    }

    /// How many messages the server has sent to watches since `before`.
    pub(super) fn told_since(&self, before: &Self) -> f64 {
        let told = |counters: &Self| counters.0.get("grpc_server_msg_sent_total Watch").copied();
        told(self).unwrap_or(0.0) - told(before).unwrap_or(0.0)
    }
}

/// The values of `name{grpc_method="method",grpc_service="etcdserverpb...",...} value`, by `name method`.
fn parse(text: &str) -> BTreeMap<String, f64> {
    // Other services have methods of the same names.
    let ours = text.lines().filter(|line| line.contains(SERVICES));
    let values = ours.filter_map(|line| {
        let (name, rest) = line.split_once("{grpc_method=\"")?;
        let (method, rest) = rest.split_once('"')?;
        let (_, value) = rest.rsplit_once(' ')?;
        Some((format!("{name} {method}"), value.parse().ok()?))
    });
    values.collect()
}

const SERVICES: &str = "grpc_service=\"etcdserverpb.";

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(requests: u32, told: u32) -> Counters {
        Counters(parse(&format!(
            "# HELP grpc_server_started_total Total number of RPCs started on the server.\n\
             grpc_server_started_total{{grpc_method=\"Txn\",grpc_service=\"etcdserverpb.KV\"}} {requests}\n\
             grpc_server_started_total{{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\"}} 3\n\
             grpc_server_msg_sent_total{{grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\"}} {told}\n\
             grpc_server_msg_sent_total{{grpc_method=\"Watch\",grpc_service=\"grpc.health.v1.Health\"}} 0\n\
             process_open_fds 13\n"
        )))
    }

    #[test]
    fn only_what_came_since_is_counted() {
        let (before, after) = (counters(7, 2), counters(9, 3));
        let requests = after.requests_since(&before);
        assert_eq!(requests, BTreeMap::from([("Txn".to_owned(), 2.0)]));
        assert!((after.told_since(&before) - 1.0).abs() < 1e-9);
    }
}
