//! How a process describes itself, and the bodies that say so to agents of each generation.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::dialect::{BadBody, Dialect, Register};
use super::time::rfc3339;

/// An application. Its secret is none of the agent's business, so there is no room for it here, and bodies hold an empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct App {
    /// Its id.
    pub id: String,
    /// The environment that it runs in, such as `prod`.
    pub env: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// This run of it. Two runs never share one. Blank, the client makes one.
    pub instance_id: String,
}

/// What a process is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kernel {
    /// Its language. Default `Rust`.
    pub language: String,
    /// The version of its framework. By default that of this crate.
    pub version: String,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            language: "Rust".to_owned(),
            version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// A service as others name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its kind, a part of its name in DNS. Default `svc`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its namespace. Default `default`.
    pub namespace: String,
    /// The domain that ends its name in DNS. Default `cluster.local`.
    pub cluster_domain: String,
    /// The port that others dial it at, where a name in DNS is dialled. Default 9090.
    pub port: u16,
    /// Its share of the calls. Default 100.
    pub weight: u16,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            name: String::new(),
            kind: "svc".to_owned(),
            namespace: "default".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            port: 9090,
            weight: 100,
        }
    }
}

/// What a process says of itself and its configuration knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceOptions {
    /// The application.
    pub app: App,
    /// What it is made of.
    pub kernel: Kernel,
    /// The service.
    pub service: Service,
    /// The protocol, `grpc` or `http`.
    pub protocol: String,
    /// The port that the process listens on.
    pub server_port: u16,
    /// The port that it is managed at. 0 if there is none.
    pub managed_port: u16,
}

impl ServiceOptions {
    /// The name of the service in DNS, without a port: agents append it.
    pub fn dns(&self) -> String {
        let Service {
            name,
            kind,
            namespace,
            cluster_domain,
            ..
        } = &self.service;
        format!("{name}.{namespace}.{kind}.{cluster_domain}")
    }
}

/// One HTTP route of a gateway to a method, or to the process itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpRoute {
    /// The method, in capitals.
    pub http_method: String,
    /// The path at the gateway.
    pub path: String,
    /// The gRPC method that requests become calls of.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub full_method: String,
    /// The path that requests are sent on to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub upstream_path: String,
    /// What is cut off the path of requests that are sent on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub strip_prefix: String,
}

/// One service of a process, as it is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceNode {
    /// What the configuration knows.
    pub options: ServiceOptions,
    /// When it was described, as RFC 3339 text in UTC.
    pub run_date: String,
    /// How many gRPC services it has.
    pub proto_count: usize,
    /// Its methods, each as `/service/method`, sorted.
    pub methods: Vec<String>,
    /// Its routes at a gateway.
    pub http_routes: Vec<HttpRoute>,
    /// Whether it wants calls. Default true. Agents of ours heed it; those of the reference system do not know it.
    pub ready: bool,
}

impl ServiceNode {
    /// Describes a service with these methods, each as `/package.Service/Method`: sorted, and each once.
    pub fn new(options: ServiceOptions, methods: impl IntoIterator<Item = String>) -> Self {
        let methods: BTreeSet<String> = methods.into_iter().collect();
        let services: BTreeSet<&str> = methods
            .iter()
            .filter_map(|method| Some(method.rsplit_once('/')?.0))
            .collect();
        let now = SystemTime::now();
        let seconds = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        Self {
            options,
            run_date: rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
            proto_count: services.len(),
            methods: methods.into_iter().collect(),
            http_routes: Vec::new(),
            ready: true,
        }
    }

    /// Adds routes of a gateway.
    #[must_use]
    pub fn with_http_routes(mut self, routes: Vec<HttpRoute>) -> Self {
        self.http_routes = routes;
        self
    }

    /// Checks what every agent asks for.
    ///
    /// # Errors
    /// The field that is missing or wrong, of several always the same.
    pub fn validate(&self) -> Result<(), BadBody> {
        self.register().map(drop)
    }

    /// What an agent reads of it.
    pub(crate) fn register(&self) -> Result<Register, BadBody> {
        Register::parse(&self.register_body(Dialect::Union))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::parse_rfc3339;

    #[test]
    fn a_run_date_is_in_utc() {
        let before = SystemTime::now() - Duration::from_secs(1);
        let node = ServiceNode::new(ServiceOptions::default(), []);
        assert!(
            node.run_date.ends_with('Z') && node.run_date.len() == 20,
            "{}",
            node.run_date
        );
        let at = parse_rfc3339(&node.run_date).unwrap();
        assert!(at >= before && at <= SystemTime::now());
    }

    #[test]
    fn methods_are_sorted_each_once_and_their_services_counted() {
        let methods = ["/b.S/M", "/a.S/M", "/b.S/L", "/b.S/M"].map(str::to_owned);
        let node = ServiceNode::new(ServiceOptions::default(), methods);
        assert_eq!(node.methods, ["/a.S/M", "/b.S/L", "/b.S/M"]);
        assert_eq!(node.proto_count, 2);
        assert_eq!(
            ServiceNode::new(ServiceOptions::default(), []).proto_count,
            0
        );
    }

    #[test]
    fn a_configuration_may_hold_what_go_micros_holds() {
        let json = r#"{"app":{"id":"a","secret":"hunter2"},"service":{"name":"auth","type":"svc","weight":7},"server_port":1}"#;
        let options: ServiceOptions = serde_json::from_str(json).unwrap();
        assert_eq!(options.dns(), "auth.default.svc.cluster.local");
        assert_eq!(
            (options.service.weight, options.kernel.language.as_str()),
            (7, "Rust")
        );
    }
}
