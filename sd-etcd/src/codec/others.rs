//! Records as programs of other projects store them, for reading only: one JSON value under the key of each instance.
//!
//! Fields that are not known are left alone, as those programs do it themselves.

use std::collections::BTreeMap;

use sd_backend::gokit::SCHEME;
use sd_backend::read_json;
use sd_core::{Endpoint, Incarnation, Instance, InstanceId, ServiceName};
use serde::Deserialize;
use serde_json::Value;

use crate::config::format::Format;

/// The scheme of the endpoint that is taken where an instance has several.
const PREFERRED: &str = "grpc";

/// What etcd's own resolver for gRPC stores.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Resolver {
    #[serde(default)]
    op: u8,
    addr: String,
    #[serde(default)]
    metadata: Value,
}

#[derive(Deserialize)]
struct Kratos {
    name: String,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
    #[serde(default)]
    endpoints: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct GoMicro {
    name: String,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    nodes: Option<Vec<Node>>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    address: String,
    /// In early versions it is not a part of the address.
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
}

/// How go-micro writes a name or an id as a part of a key.
pub(crate) fn go_micro_segment(name: &str) -> String {
    name.replace('/', "-")
}

/// The instance that `value` says, stored in this `format` for `service` under a key that ends with `suffix`, as the run `run`. An
/// error says why it cannot be understood.
pub(crate) fn decode(
    format: Format,
    service: &ServiceName,
    suffix: &str,
    value: &[u8],
    run: Incarnation,
) -> Result<Instance, String> {
    let id = InstanceId::new(suffix).map_err(|error| error.report().to_string())?;
    let instance = |address: &str, port: Option<u16>| {
        let endpoint = match port {
            Some(port) if port != 0 => Endpoint::tcp(address, port),
            _ => address.parse(),
        };
        let endpoint = endpoint.map_err(|error| error.report().to_string())?;
        Ok::<_, String>(Instance::of_run(service.clone(), id, run, endpoint))
    };
    match format {
        Format::Kratos => {
            let stored: Kratos = read_json(value)?;
            check_name(&stored.name, service.as_str())?;
            let endpoints = stored.endpoints.unwrap_or_default();
            let urls = endpoints.iter().filter_map(|url| url.split_once("://"));
            let (scheme, rest) = urls
                .clone()
                .find(|(scheme, _)| *scheme == PREFERRED)
                .or_else(|| urls.clone().next())
                .ok_or("the value has no endpoint")?;
            let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
            let mut instance = instance(address.trim_end_matches('/'), None)?;
            for (key, value) in stored.metadata.unwrap_or_default() {
                instance = instance.with_metadata(key, value);
            }
            let is_secure = query.split('&').any(|part| part == "isSecure=true");
            // As kratos names the schemes of endpoints with TLS itself.
            let secure = if is_secure { "s" } else { "" };
            instance = instance.with_metadata(SCHEME, format!("{scheme}{secure}"));
            Ok(with_version(instance, stored.version))
        }
        Format::GoMicro => {
            let stored: GoMicro = read_json(value)?;
            check_name(
                &go_micro_segment(&stored.name),
                &go_micro_segment(service.as_str()),
            )?;
            let mut nodes = stored.nodes.unwrap_or_default().into_iter();
            let node = nodes.find(|node| go_micro_segment(&node.id) == suffix);
            let node = node.ok_or("the value has no node of the id in its key")?;
            let mut instance = instance(&node.address, node.port)?;
            for (key, value) in node.metadata.unwrap_or_default() {
                instance = instance.with_metadata(key, value);
            }
            Ok(with_version(instance, stored.version))
        }
        Format::Resolver | Format::Apisix | Format::Json | Format::GoKit => {
            let stored: Resolver = read_json(value)?;
            if stored.op != 0 {
                return Err(format!("the value says operation {}, not 0", stored.op));
            }
            let mut instance = instance(&stored.addr, None)?;
            match stored.metadata {
                Value::Null => {}
                Value::Object(fields) => {
                    for (key, value) in fields {
                        instance = instance.with_metadata(key, text(value));
                    }
                }
                other => instance = instance.with_metadata("metadata", text(other)),
            }
            Ok(instance)
        }
    }
}

fn check_name(stored: &str, expected: &str) -> Result<(), String> {
    if stored == expected {
        return Ok(());
    }
    Err(format!("the value is of the service {stored:?}"))
}

fn with_version(instance: Instance, version: Option<String>) -> Instance {
    match version.filter(|version| !version.is_empty()) {
        Some(version) => instance.with_version(version),
        None => instance,
    }
}

/// Text as it is, everything else as JSON.
pub(crate) fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORMATS: [Format; 3] = [Format::Resolver, Format::Kratos, Format::GoMicro];

    fn read(format: Format, service: &str, id: &str, value: &str) -> Result<Instance, String> {
        let service = ServiceName::new(service).unwrap();
        decode(
            format,
            &service,
            id,
            value.as_bytes(),
            Incarnation::from_u64(7),
        )
    }

    fn metadata(instance: &Instance) -> Vec<(&str, &str)> {
        let metadata = instance.metadata().iter();
        metadata
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect()
    }

    /// As Go's encoder writes the struct of `client/v3/naming/endpoints`.
    #[test]
    fn what_etcds_resolver_stores_is_read() {
        let stored = r#"{"Op":0,"Addr":"10.0.0.1:50051","Metadata":null}"#;
        let read_of = |stored: &str| read(Format::Resolver, "my-service", "a/b", stored);
        let plain = read_of(stored).unwrap();
        assert_eq!(plain.endpoint().to_string(), "10.0.0.1:50051");
        assert_eq!(plain.id().as_str(), "a/b");
        assert!(plain.metadata().is_empty());
        let with = r#"{"Op":0,"Addr":"h:1","Metadata":{"zone":"a","weight":3,"on":true}}"#;
        assert_eq!(
            metadata(&read_of(with).unwrap()),
            [("on", "true"), ("weight", "3"), ("zone", "a")]
        );
        let text = r#"{"Op":0,"Addr":"h:1","Metadata":"metadata"}"#;
        assert_eq!(
            metadata(&read_of(text).unwrap()),
            [("metadata", "metadata")]
        );
        for (stored, why) in [
            (r#"{"Op":1,"Addr":"h:1","Metadata":null}"#, "operation 1"),
            (r#"{"Op":0,"Addr":"","Metadata":{"a":1}}"#, "port"),
            ("{}", "missing field"),
            ("http://h:1", "expected"),
        ] {
            let error = read_of(stored).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    /// As Go's encoder writes `registry.ServiceInstance` of version 2.
    #[test]
    fn what_kratos_stores_is_read() {
        let stored = r#"{"id":"6f9f","name":"helloworld","version":"v1.0.0","metadata":{"region":"r"},"endpoints":["http://10.0.0.1:8000?isSecure=false","grpc://10.0.0.1:9000?isSecure=false"]}"#;
        let instance = read(Format::Kratos, "helloworld", "6f9f", stored).unwrap();
        assert_eq!(instance.endpoint().to_string(), "10.0.0.1:9000");
        assert_eq!(instance.version(), Some("v1.0.0"));
        assert_eq!(metadata(&instance), [("region", "r"), ("scheme", "grpc")]);
        let secure = r#"{"id":"i","name":"s","version":"","metadata":null,"endpoints":["http://h:8000?isSecure=true"]}"#;
        let instance = read(Format::Kratos, "s", "i", secure).unwrap();
        assert_eq!(metadata(&instance), [("scheme", "https")]);
        assert_eq!(instance.version(), None);
        for (stored, why) in [
            (
                r#"{"id":"i","name":"s2","version":"","metadata":null,"endpoints":["grpc://h:1"]}"#,
                "s2",
            ),
            (
                r#"{"id":"i","name":"s","version":"","metadata":null,"endpoints":null}"#,
                "no endpoint",
            ),
        ] {
            let error = read(Format::Kratos, "s", "i", stored).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    /// As Go's encoder writes `registry.Service` with one node, for each of which go-micro has a key.
    #[test]
    fn what_go_micro_stores_is_read() {
        let stored = r#"{"name":"go/greeter","version":"latest","metadata":null,"endpoints":[{"name":"Say.Hello","request":{"name":"Request","type":"Request","values":null},"response":null,"metadata":{}}],"nodes":[{"id":"go/greeter-8fa5","address":"10.0.0.1:50123","metadata":{"protocol":"grpc"}}]}"#;
        for service in ["go/greeter", "go-greeter"] {
            let instance = read(Format::GoMicro, service, "go-greeter-8fa5", stored).unwrap();
            assert_eq!(instance.endpoint().to_string(), "10.0.0.1:50123");
            assert_eq!(instance.version(), Some("latest"));
            assert_eq!(metadata(&instance), [("protocol", "grpc")]);
        }
        // As version 6 writes it, whose fields have another order.
        let today = r#"{"name":"greeter","version":"latest","metadata":null,"endpoints":[{"request":{"name":"Request","type":"Request","values":null},"response":{"name":"Response","type":"Response","values":null},"metadata":{},"name":"Say.Hello"}],"nodes":[{"metadata":{"broker":"http","protocol":"mucp","registry":"etcd","server":"mucp","transport":"http"},"id":"greeter-5c9b","address":"10.0.0.1:50123"}]}"#;
        let instance = read(Format::GoMicro, "greeter", "greeter-5c9b", today).unwrap();
        assert_eq!(instance.endpoint().to_string(), "10.0.0.1:50123");
        assert_eq!(instance.metadata()["registry"], "etcd");
        let early = r#"{"name":"s","nodes":[{"id":"i","address":"10.0.0.1","port":8080}]}"#;
        let instance = read(Format::GoMicro, "s", "i", early).unwrap();
        assert_eq!(instance.endpoint().to_string(), "10.0.0.1:8080");
        let error = read(Format::GoMicro, "s", "other", early).unwrap_err();
        assert!(error.contains("no node"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(value in prop::collection::vec(any::<u8>(), 0..80), at in 0..3_usize) {
            let service = ServiceName::new("s").unwrap();
            let _ = decode(FORMATS[at], &service, "i", &value, Incarnation::from_u64(1));
        }
    }
}
