//! The gateway's manifest of the reference system's fourth generation: which methods a process serves, and which HTTP routes lead there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::error::{AgentError, Result, printable};
use crate::wire::{HttpRoute, ServiceNode, ServiceOptions};

/// A manifest that has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayManifest {
    /// The methods of each service.
    services: BTreeMap<String, BTreeSet<String>>,
    routes: Vec<HttpRoute>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    schema: String,
    #[serde(default)]
    services: Vec<DocumentService>,
    #[serde(default)]
    routes: Vec<HttpRoute>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentService {
    #[serde(default)]
    name: String,
    #[serde(default)]
    methods: Vec<String>,
}

impl GatewayManifest {
    /// Where builds of the reference system put it.
    pub const DEFAULT_PATH: &str = "dep/protobuf/gen/gateway.manifest.json";
    const SCHEMA: &str = "firefly.gateway.manifest.v1";
    const MOST_BYTES: u64 = 16 << 20;

    /// Reads a file of at most 16 MiB.
    ///
    /// # Errors
    /// `Invalid` says what is wrong with it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.as_os_str().is_empty() {
            return Err(AgentError::Invalid(
                "gateway manifest path is required".to_owned(),
            ));
        }
        let failed = |verb: &str, reason: String| {
            let path = printable(path.display());
            AgentError::Invalid(format!("{verb} gateway manifest {path:?}: {reason}"))
        };
        let read = || {
            let mut bytes = Vec::new();
            let file = std::fs::File::open(path)?;
            file.take(Self::MOST_BYTES + 1).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(bytes)
        };
        let bytes = read().map_err(|error| failed("read", error.to_string()))?;
        if bytes.len() as u64 > Self::MOST_BYTES {
            return Err(failed(
                "read",
                format!("it is longer than {} bytes", Self::MOST_BYTES),
            ));
        }
        // Neither fields that are unknown nor anything after the document is let pass.
        let document =
            serde_json::from_slice(&bytes).map_err(|error| failed("decode", printable(error)))?;
        Self::checked(document).map_err(|reason| failed("validate", printable(reason)))
    }

    fn checked(document: Document) -> std::result::Result<Self, String> {
        if document.schema != Self::SCHEMA {
            return Err(format!(
                "schema must be {:?}, not {:?}",
                Self::SCHEMA,
                document.schema
            ));
        }
        if document.services.is_empty() {
            return Err("services must not be empty".to_owned());
        }
        let mut services = BTreeMap::new();
        for service in document.services {
            let name = service.name.trim().to_owned();
            let methods = methods(&name, &service.methods)?;
            if services.contains_key(&name) {
                return Err(format!("service {name} is there twice"));
            }
            services.insert(name, methods);
        }
        let declared: BTreeSet<&String> = services.values().flatten().collect();
        let mut seen = BTreeSet::new();
        let mut routes = Vec::new();
        for route in document.routes {
            let route = checked_route(route, &declared)?;
            if !seen.insert((route.http_method.clone(), route.path.clone())) {
                return Err(format!(
                    "route {} {} is there twice",
                    route.http_method, route.path
                ));
            }
            routes.push(route);
        }
        let transcoded = routes
            .iter()
            .filter(|route| !route.full_method.is_empty())
            .count();
        if transcoded > 0 && transcoded < routes.len() {
            return Err(
                "routes to methods and routes that are passed on must not be mixed".to_owned(),
            );
        }
        routes.sort_by(|a, b| (&a.path, &a.http_method).cmp(&(&b.path, &b.http_method)));
        Ok(Self { services, routes })
    }

    /// The methods of all services, sorted.
    pub fn methods(&self) -> impl Iterator<Item = &str> {
        self.services.values().flatten().map(String::as_str)
    }

    /// The routes, sorted by path.
    pub fn routes(&self) -> &[HttpRoute] {
        &self.routes
    }

    /// Describes a process with what the manifest lists.
    pub fn node(&self, options: ServiceOptions) -> ServiceNode {
        let methods = self.methods().map(str::to_owned);
        ServiceNode {
            proto_count: self.services.len(),
            ..ServiceNode::new(options, methods).with_http_routes(self.routes.clone())
        }
    }
}

fn methods(service: &str, methods: &[String]) -> std::result::Result<BTreeSet<String>, String> {
    if service.is_empty() {
        return Err("a service has no name".to_owned());
    }
    if methods.is_empty() {
        return Err(format!("service {service} has no methods"));
    }
    let mut unique = BTreeSet::new();
    for method in methods {
        let method = method.trim();
        let name = method
            .strip_prefix('/')
            .and_then(|rest| rest.strip_prefix(service)?.strip_prefix('/'));
        if !name.is_some_and(|name| !name.is_empty() && !name.contains('/')) {
            return Err(format!("method {method:?} must be /{service}/ and a name"));
        }
        if !unique.insert(method.to_owned()) {
            return Err(format!("method {method} is there twice"));
        }
    }
    Ok(unique)
}

fn checked_route(
    route: HttpRoute,
    declared: &BTreeSet<&String>,
) -> std::result::Result<HttpRoute, String> {
    let trimmed = |text: String| text.trim().to_owned();
    let route = HttpRoute {
        http_method: route.http_method.trim().to_uppercase(),
        path: trimmed(route.path),
        full_method: trimmed(route.full_method),
        upstream_path: trimmed(route.upstream_path),
        strip_prefix: trimmed(route.strip_prefix),
    };
    let HttpRoute {
        http_method,
        path,
        full_method,
        upstream_path,
        strip_prefix,
    } = &route;
    let named = format!("route {http_method} {path}");
    if http_method.is_empty() {
        return Err(format!("{named} has no http_method"));
    }
    if !path.starts_with('/') {
        return Err(format!("{named}: path must start with /"));
    }
    if full_method.is_empty() {
        if !upstream_path.is_empty() && !strip_prefix.is_empty() {
            return Err(format!(
                "{named} has an upstream_path and a strip_prefix: choose one"
            ));
        }
        let bad = |text: &str| {
            !text.is_empty()
                && (!text.starts_with('/')
                    || text.contains(|c: char| c.is_whitespace() || matches!(c, '?' | '#')))
        };
        if bad(upstream_path) {
            return Err(format!(
                "{named}: upstream_path must start with / and have no space, ? or #"
            ));
        }
        if bad(strip_prefix) {
            return Err(format!(
                "{named}: strip_prefix must start with / and have no space, ? or #"
            ));
        }
        return Ok(route);
    }
    if !upstream_path.is_empty() || !strip_prefix.is_empty() {
        return Err(format!(
            "{named} has a full_method, so that upstream_path and strip_prefix mean nothing"
        ));
    }
    if !declared.contains(full_method) {
        return Err(format!(
            "{named}: full_method {full_method} is of no service here"
        ));
    }
    Ok(route)
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
