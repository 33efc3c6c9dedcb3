//! `POST /register`.

use std::collections::{BTreeMap, BTreeSet};

use sd_core::{Endpoint, ServiceName};
use serde::Serialize;

use super::register_body::{Body, KernelBody, RouteBody};
use super::{BadBody, is_true, port};
use crate::wire::go_json::{List, decode};
use crate::wire::{AppInstance, Declaration, HttpRoute, Kernel, meta};

/// A registration as a client of the reference system describes it. Its JSON form is that of the first generation, as replies repeat
/// it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Register {
    /// The id of the application.
    pub app_id: String,
    /// The name of the application.
    pub app_name: String,
    /// The name of the service.
    pub name: String,
    /// The namespace of the service.
    pub namespace: String,
    /// The name of the service in DNS, without a port.
    pub dns: String,
    /// The environment.
    pub env: String,
    /// The protocol, `grpc` or `http`.
    pub protocol: String,
    /// The version of the application.
    pub version: String,
    /// The port that the process listens on.
    pub port: u16,
    /// The share of the calls.
    pub weight: u16,
    /// What the client is made of.
    pub kernel: Kernel,
    /// The methods, each as `/service/method`, sorted and each once.
    pub methods: BTreeSet<String>,
    /// The run of the application. Flat bodies have none.
    #[serde(rename = "app_instance_id", skip_serializing_if = "String::is_empty")]
    pub app_instance_id: String,
    /// Whether it wants calls. Clients of the reference system always do.
    #[serde(skip_serializing_if = "is_true")]
    pub ready: bool,
    /// When the client described itself. Flat bodies do not say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub run_date: String,
    /// Routes of a gateway. Only the fourth generation has some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http_routes: Vec<HttpRoute>,
}

/// The weight of a nested body that says none.
const DEFAULT_WEIGHT: i64 = 100;

impl Register {
    /// Reads a body of any generation.
    ///
    /// # Errors
    /// What is wrong with it, of the fields in a fixed order the first.
    pub fn parse(body: &[u8]) -> Result<Self, BadBody> {
        let body: Body = decode(body)?;
        if body.service.0.is_some() || body.app.0.is_some() {
            return nested(body);
        }
        require(&[
            ("app_id", &body.app_id),
            ("app_name", &body.app_name),
            ("name", &body.name),
            ("namespace", &body.namespace),
            ("dns", &body.dns),
            ("env", &body.env),
            ("protocol", &body.protocol),
            ("version", &body.version),
            ("kernel.language", &body.kernel.language),
            ("kernel.version", &body.kernel.version),
        ])?;
        let names = Names {
            app_id: body.app_id,
            app_name: body.app_name,
            app_instance_id: String::new(),
            env: body.env,
            version: body.version,
            name: body.name,
            namespace: body.namespace,
        };
        let (port, weight) = (port(body.port)?, weight(body.weight)?);
        let rest = Rest {
            dns: body.dns,
            protocol: body.protocol,
            kernel: body.kernel,
            methods: body.methods,
            ready: body.ready.0,
            run_date: body.run_date,
            http_routes: body.http_routes,
        };
        checked(names, port, weight, rest)
    }

    /// What the agent registers. What only the reference system knows is in the metadata, under the names of [`meta`].
    ///
    /// # Errors
    /// The name of the service cannot be one here.
    pub fn declaration(&self) -> Result<Declaration, BadBody> {
        let service = ServiceName::new(&self.name)
            .map_err(|error| BadBody::new(format_args!("name: {}", error.report())))?;
        let app = (!self.app_instance_id.is_empty()).then(|| AppInstance {
            app_id: self.app_id.clone(),
            app_instance_id: self.app_instance_id.clone(),
        });
        Ok(Declaration {
            service,
            address: None,
            port: Some(self.port),
            id: None,
            app,
            version: Some(self.version.clone()),
            zone: None,
            weight: Some(self.weight),
            priority: 0,
            tags: BTreeSet::new(),
            metadata: self.metadata(),
            ready: self.ready,
            ttl: None,
            checks: Vec::new(),
        })
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        let weight = self.weight.to_string();
        let mut metadata: BTreeMap<String, String> = [
            (meta::APP_ID, &self.app_id),
            (meta::APP_NAME, &self.app_name),
            (meta::APP_INSTANCE_ID, &self.app_instance_id),
            (meta::NAMESPACE, &self.namespace),
            (meta::DNS, &self.dns),
            (meta::ENV, &self.env),
            (meta::PROTOCOL, &self.protocol),
            (meta::WEIGHT, &weight),
            (meta::KERNEL_LANGUAGE, &self.kernel.language),
            (meta::KERNEL_VERSION, &self.kernel.version),
            (meta::RUN_DATE, &self.run_date),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .collect();
        let prefixes = route_prefixes(&self.methods);
        meta::put_list(&mut metadata, meta::ROUTE_PREFIXES, ',', prefixes);
        meta::put_list(&mut metadata, meta::METHODS, ',', &self.methods);
        let routes = self.http_routes.iter();
        let routes = routes.filter_map(|route| serde_json::to_string(route).ok());
        meta::put_list(&mut metadata, meta::HTTP_ROUTES, '\n', routes);
        metadata
    }

    /// What a client of the reference system would have sent for a declaration, as far as the declaration says it.
    pub fn of(declaration: &Declaration) -> Self {
        let metadata = &declaration.metadata;
        let text = |key: &str| metadata.get(key).cloned().unwrap_or_default();
        let app = declaration.app.as_ref();
        let port = declaration
            .port
            .or(declaration.address.as_ref().and_then(Endpoint::port));
        let routes = meta::list(metadata, meta::HTTP_ROUTES, '\n');
        Self {
            app_id: app.map_or_else(|| text(meta::APP_ID), |app| app.app_id.clone()),
            app_name: text(meta::APP_NAME),
            name: declaration.service.to_string(),
            namespace: text(meta::NAMESPACE),
            dns: text(meta::DNS),
            env: text(meta::ENV),
            protocol: text(meta::PROTOCOL),
            version: declaration.version.clone().unwrap_or_default(),
            port: port.unwrap_or(0),
            weight: declaration.weight.unwrap_or(1),
            kernel: Kernel {
                language: text(meta::KERNEL_LANGUAGE),
                version: text(meta::KERNEL_VERSION),
            },
            methods: meta::list(metadata, meta::METHODS, ',')
                .map(str::to_owned)
                .collect(),
            app_instance_id: app
                .map(|app| app.app_instance_id.clone())
                .unwrap_or_default(),
            ready: declaration.ready,
            run_date: text(meta::RUN_DATE),
            http_routes: routes
                .filter_map(|route| serde_json::from_str(route).ok())
                .collect(),
        }
    }

    /// The prefixes that calls of it are routed by: each method up to its last slash.
    pub fn route_prefixes(&self) -> BTreeSet<String> {
        route_prefixes(&self.methods)
    }
}

fn route_prefixes(methods: &BTreeSet<String>) -> BTreeSet<String> {
    let prefix = |method: &String| Some(method[..=method.rfind('/')?].to_owned());
    methods.iter().filter_map(prefix).collect()
}

/// What flat and nested bodies have at different places.
struct Names {
    app_id: String,
    app_name: String,
    app_instance_id: String,
    env: String,
    version: String,
    name: String,
    namespace: String,
}

/// What both have at one place.
struct Rest {
    dns: String,
    protocol: String,
    kernel: KernelBody,
    methods: List<String>,
    ready: bool,
    run_date: String,
    http_routes: List<RouteBody>,
}

fn nested(body: Body) -> Result<Register, BadBody> {
    let (app, service) = (
        body.app.0.unwrap_or_default(),
        body.service.0.unwrap_or_default(),
    );
    require(&[
        ("app.id", &app.id),
        ("app.instance_id", &app.instance_id),
        ("app.name", &app.name),
        ("app.env", &app.env),
        ("app.version", &app.version),
        ("kernel.language", &body.kernel.language),
        ("kernel.version", &body.kernel.version),
        ("service.name", &service.name),
        ("service.namespace", &service.namespace),
        ("protocol", &body.protocol),
        ("dns", &body.dns),
    ])?;
    let number = match body.server_port {
        0 => service.port,
        number => number,
    };
    let share = match service.weight {
        0 => DEFAULT_WEIGHT,
        share => share,
    };
    let names = Names {
        app_id: app.id,
        app_name: app.name,
        app_instance_id: app.instance_id,
        env: app.env,
        version: app.version,
        name: service.name,
        namespace: service.namespace,
    };
    let rest = Rest {
        dns: body.dns,
        protocol: body.protocol,
        kernel: body.kernel,
        methods: body.methods,
        ready: body.ready.0,
        run_date: body.run_date,
        http_routes: body.http_routes,
    };
    checked(names, port(number)?, weight(share)?, rest)
}

fn checked(names: Names, port: u16, weight: u16, rest: Rest) -> Result<Register, BadBody> {
    let mut methods = BTreeSet::new();
    for method in &rest.methods.0 {
        let method = method.trim();
        // A comma separates methods where they are kept.
        if !method.starts_with('/') || method.contains(|c: char| c == ',' || c.is_control()) {
            return Err(BadBody::new(format_args!("method is invalid: {method}")));
        }
        methods.insert(method.to_owned());
    }
    if methods.is_empty() {
        return Err(BadBody::new("methods must not be empty"));
    }
    let routes = rest.http_routes.0.into_iter().map(|route| HttpRoute {
        http_method: route.http_method,
        path: route.path,
        full_method: route.full_method,
        upstream_path: route.upstream_path,
        strip_prefix: route.strip_prefix,
    });
    Ok(Register {
        app_id: names.app_id,
        app_name: names.app_name,
        name: names.name,
        namespace: names.namespace,
        dns: without_port(&rest.dns).to_owned(),
        env: names.env,
        protocol: rest.protocol,
        version: names.version,
        port,
        weight,
        kernel: Kernel {
            language: rest.kernel.language,
            version: rest.kernel.version,
        },
        methods,
        app_instance_id: names.app_instance_id,
        ready: rest.ready,
        run_date: rest.run_date,
        http_routes: routes.collect(),
    })
}

/// The first of the fields that is blank.
fn require(fields: &[(&str, &str)]) -> Result<(), BadBody> {
    let blank = fields.iter().find(|(_, value)| value.trim().is_empty());
    blank.map_or(Ok(()), |(field, _)| Err(BadBody::required(field)))
}

fn weight(number: i64) -> Result<u16, BadBody> {
    match u16::try_from(number) {
        Ok(weight) if weight > 0 => Ok(weight),
        _ if number <= 0 => Err(BadBody::new("weight must be greater than zero")),
        _ => Err(BadBody::new(format_args!(
            "weight is invalid: {number}: at most 65535"
        ))),
    }
}

/// The second generation sends a port as well, which agents would append once more.
fn without_port(dns: &str) -> &str {
    match dns.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()) => name,
        _ => dns,
    }
}

#[cfg(test)]
#[path = "register_tests.rs"]
mod tests;
