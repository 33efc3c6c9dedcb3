//! Upstreams as APISIX keeps them, for reading only: all nodes of one in one JSON value, under the key of the upstream.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use sd_backend::gokit::SCHEME;
use sd_backend::read_json;
use sd_core::{Endpoint, Incarnation, Instance, InstanceId, ServiceName};
use serde::Deserialize;
use serde_json::Value;

use crate::codec::others::text;

/// The scheme of an upstream that states none.
const DEFAULT_SCHEME: &str = "http";

/// What of an upstream says where its nodes are. It may also hold keys of certificates.
#[derive(Deserialize)]
struct Upstream {
    #[serde(default)]
    nodes: Value,
    #[serde(default)]
    scheme: Option<String>,
    #[serde(default)]
    discovery_type: Option<String>,
}

#[derive(Deserialize)]
struct Node {
    host: String,
    #[serde(default)]
    port: Option<u16>,
    weight: i64,
    #[serde(default)]
    priority: i64,
    #[serde(default)]
    metadata: BTreeMap<String, Value>,
}

/// The nodes of an upstream, and those that cannot be understood: where each stands, and why.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    pub(crate) instances: Vec<Instance>,
    pub(crate) skipped: Vec<(String, String)>,
}

/// What `value` says of the nodes of `service`, as the run `run`. An error says why it cannot be understood.
pub(crate) fn decode(
    service: &ServiceName,
    value: &[u8],
    run: Incarnation,
) -> Result<Nodes, String> {
    let upstream: Upstream = read_json(value)?;
    let scheme = upstream.scheme.as_deref().unwrap_or(DEFAULT_SCHEME);
    let mut nodes = Nodes::default();
    let mut found = Vec::new();
    match upstream.nodes {
        Value::Object(weights) => {
            for (address, weight) in weights {
                // What stands before an `@` may be a password.
                let shown = address.rsplit('@').next().unwrap_or_default().to_owned();
                match node(&address, &weight) {
                    Ok(node) => found.push((shown, node)),
                    Err(reason) => nodes.skipped.push((shown, reason)),
                }
            }
        }
        Value::Array(list) => {
            for (at, stored) in list.into_iter().enumerate() {
                match read_json(stored.to_string().as_bytes()) {
                    Ok(node) => found.push((at.to_string(), node)),
                    Err(reason) => nodes.skipped.push((at.to_string(), reason)),
                }
            }
        }
        Value::Null => {
            return Err(match upstream.discovery_type {
                Some(kind) => format!("the upstream has no nodes: APISIX finds them by {kind:?}"),
                None => "the upstream has no nodes".to_owned(),
            });
        }
        _ => return Err("the nodes are neither an object nor a list".to_owned()),
    }
    // In APISIX the greatest comes first, and may be negative.
    let tiers = found.iter().map(|(_, node)| Reverse(node.priority));
    let mut tiers: Vec<_> = tiers.collect();
    tiers.sort_unstable();
    tiers.dedup();
    for (at, node) in found {
        let tier = tiers.partition_point(|tier| *tier < Reverse(node.priority));
        let tier = u16::try_from(tier).unwrap_or(u16::MAX);
        match instance(service, run, scheme, tier, node) {
            Ok(instance) => nodes.instances.push(instance),
            Err(reason) => nodes.skipped.push((at, reason)),
        }
    }
    Ok(nodes)
}

/// A node of the form that has only addresses and weights.
fn node(address: &str, weight: &Value) -> Result<Node, String> {
    let weight = weight.as_i64().ok_or("its weight is no whole number")?;
    let is_ip = address.parse::<IpAddr>().is_ok();
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !is_ip && !port.ends_with(']') => (host, Some(port)),
        _ => (address, None),
    };
    let port = port.map(str::parse).transpose();
    Ok(Node {
        host: host.to_owned(),
        port: port.map_err(|_| "its port is no port")?,
        weight,
        priority: 0,
        metadata: BTreeMap::new(),
    })
}

fn instance(
    service: &ServiceName,
    run: Incarnation,
    scheme: &str,
    tier: u16,
    node: Node,
) -> Result<Instance, String> {
    let port = node.port.or(match scheme {
        "http" | "grpc" => Some(80),
        "https" | "grpcs" => Some(443),
        _ => None,
    });
    let port = port.ok_or_else(|| format!("it has no port, and {scheme:?} has none by default"))?;
    let endpoint = Endpoint::tcp(&node.host, port).map_err(|error| error.report().to_string())?;
    let id = InstanceId::new(endpoint.to_string()).map_err(|error| error.report().to_string())?;
    let weight = u16::try_from(node.weight.max(0)).unwrap_or(u16::MAX);
    let mut instance = Instance::of_run(service.clone(), id, run, endpoint)
        .with_weight(weight)
        .with_priority(tier);
    for (key, value) in node.metadata {
        instance = instance.with_metadata(key, text(value));
    }
    Ok(instance.with_metadata(SCHEME, scheme))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(value: &str) -> Result<Nodes, String> {
        let service = ServiceName::new("1").unwrap();
        decode(&service, value.as_bytes(), Incarnation::from_u64(7))
    }

    /// Address, weight and tier of each.
    fn shown(nodes: &Nodes) -> Vec<(String, u16, u16)> {
        let shown = nodes.instances.iter();
        shown
            .map(|one| (one.endpoint().to_string(), one.weight(), one.priority()))
            .collect()
    }

    /// As APISIX 3 answers for an upstream of its documentation of the Admin API, with the fields that it adds.
    #[test]
    fn the_nodes_of_an_upstream_are_read_in_both_forms() {
        let stored = r#"{"create_time":1689038794,"hash_on":"vars","id":"1","nodes":{"127.0.0.1:1980":1,"foo.com":0,"[::1]:80":70000},"pass_host":"pass","scheme":"http","type":"roundrobin","update_time":1689038916}"#;
        let nodes = read(stored).unwrap();
        let one = |address: &str, weight, tier| (address.to_owned(), weight, tier);
        assert_eq!(
            shown(&nodes),
            [
                one("127.0.0.1:1980", 1, 0),
                one("[::1]:80", u16::MAX, 0),
                one("foo.com:80", 0, 0),
            ]
        );
        assert_eq!(nodes.instances[0].id().as_str(), "127.0.0.1:1980");
        assert_eq!(nodes.instances[0].metadata()[SCHEME], "http");
        let stored = r#"{"id":"1","nodes":[{"host":"127.0.0.1","port":1980,"weight":1},{"host":"127.0.0.1","port":1981,"weight":1,"priority":-1},{"host":"h","weight":2,"priority":10,"metadata":{"zone":"a","n":1}}],"scheme":"grpcs","type":"roundrobin"}"#;
        let nodes = read(stored).unwrap();
        assert_eq!(
            shown(&nodes),
            [
                one("127.0.0.1:1980", 1, 1),
                one("127.0.0.1:1981", 1, 2),
                one("h:443", 2, 0),
            ]
        );
        assert_eq!(nodes.instances[2].metadata()["zone"], "a");
        assert_eq!(nodes.instances[2].metadata()["n"], "1");
        for empty in ["{}", "[]"] {
            let stored = format!(r#"{{"nodes":{empty},"type":"roundrobin"}}"#);
            assert!(shown(&read(&stored).unwrap()).is_empty());
        }
    }

    #[test]
    fn a_node_that_cannot_be_read_hides_no_other_and_an_upstream_says_why() {
        let stored = r#"{"nodes":{"h:1":1,"h:x":1,"h:2":"1","u:sesame@h:3":1},"scheme":"http"}"#;
        let nodes = read(stored).unwrap();
        assert_eq!(nodes.instances.len(), 1);
        assert_eq!(nodes.skipped.len(), 3, "{nodes:?}");
        assert!(!format!("{:?}", nodes.skipped).contains("sesame"));
        let stored = r#"{"nodes":[{"host":"h","port":1,"weight":1},{"host":"h"},{"host":"h","weight":1}],"scheme":"tcp"}"#;
        let nodes = read(stored).unwrap();
        assert_eq!(nodes.instances.len(), 1);
        let why = |at: &str| {
            let of = nodes.skipped.iter().find(|(node, _)| node == at);
            &of.unwrap().1
        };
        assert!(why("1").contains("missing field `weight`"), "{nodes:?}");
        assert!(why("2").contains("no port"), "{nodes:?}");
        for (stored, reason) in [
            (
                r#"{"service_name":"s","discovery_type":"nacos","type":"roundrobin"}"#,
                "nacos",
            ),
            (r#"{"type":"roundrobin"}"#, "no nodes"),
            (r#"{"nodes":7}"#, "neither"),
            ("init_dir", "expected"),
        ] {
            let error = read(stored).unwrap_err();
            assert!(error.contains(reason), "{stored}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(value in prop::collection::vec(any::<u8>(), 0..80), nodes in "\\PC{0,40}") {
            let service = ServiceName::new("s").unwrap();
            let _ = decode(&service, &value, Incarnation::from_u64(1));
            let _ = read(&format!(r#"{{"nodes":{nodes}}}"#));
            let _ = read(&format!(r#"{{"nodes":{{"{nodes}":1}}}}"#));
        }
    }
}
