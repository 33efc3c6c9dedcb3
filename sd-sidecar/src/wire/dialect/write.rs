//! The bodies as clients of each generation write them, byte for byte.

use std::fmt::Write;

use serde::Serialize;

use super::is_true;
use crate::wire::{App, HttpRoute, Kernel, ServiceNode};

/// Whose bodies are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Flat bodies, as the public agent reads them.
    G1,
    /// Nested ones, whose name in DNS has a port.
    G2,
    /// Nested ones.
    G3,
    /// Nested ones with the routes of a gateway.
    G4,
    /// Flat and nested at once, so that agents of every generation understand them.
    #[default]
    Union,
}

impl ServiceNode {
    /// The body of `POST /register`.
    pub fn register_body(&self, dialect: Dialect) -> Vec<u8> {
        let options = &self.options;
        let dns = match dialect {
            Dialect::G2 => format!("{}:{}", options.dns(), options.server_port),
            _ => options.dns(),
        };
        let routes: &[HttpRoute] = match dialect {
            Dialect::G4 | Dialect::Union => &self.http_routes,
            _ => &[],
        };
        let flat = FlatNames {
            app_id: &options.app.id,
            app_name: &options.app.name,
            name: &options.service.name,
            namespace: &options.service.namespace,
        };
        let numbers = FlatNumbers {
            env: &options.app.env,
            version: &options.app.version,
            port: options.server_port,
            weight: options.service.weight,
        };
        let kernel = PlainKernel {
            language: &options.kernel.language,
            version: &options.kernel.version,
        };
        let rest = NestedRest {
            server_port: options.server_port,
            managed_port: options.managed_port,
            run_date: &self.run_date,
            proto_count: self.proto_count,
        };
        match dialect {
            Dialect::G1 => go_json(&FlatBody {
                flat,
                dns: &dns,
                protocol: &options.protocol,
                numbers,
                kernel,
                methods: &self.methods,
            }),
            Dialect::G2 | Dialect::G3 | Dialect::G4 => go_json(&NestedBody {
                app: AppBody::of(&options.app),
                kernel: CapitalKernel::of(&options.kernel),
                service: &options.service,
                protocol: &options.protocol,
                server_port: rest.server_port,
                managed_port: rest.managed_port,
                dns: &dns,
                run_date: rest.run_date,
                proto_count: rest.proto_count,
                methods: &self.methods,
                http_routes: routes,
            }),
            Dialect::Union => go_json(&UnionBody {
                flat,
                dns: &dns,
                protocol: &options.protocol,
                numbers,
                kernel,
                methods: &self.methods,
                app: AppBody::of(&options.app),
                service: &options.service,
                rest,
                ready: self.ready,
                http_routes: routes,
            }),
        }
    }

    /// The body of `POST /drain`. The grace period is text as of [`format_duration`](crate::wire::format_duration); blank, the agent
    /// decides.
    pub fn drain_body(&self, dialect: Dialect, grace_period: &str) -> Vec<u8> {
        self.leaving_body(dialect, Some(grace_period))
    }

    /// The body of `POST /deregister`.
    pub fn deregister_body(&self, dialect: Dialect) -> Vec<u8> {
        self.leaving_body(dialect, None)
    }

    fn leaving_body(&self, dialect: Dialect, grace_period: Option<&str>) -> Vec<u8> {
        use Dialect::{G1, G2, Union};
        let (app, service) = (&self.options.app, self.options.service.name.as_str());
        let (is_flat, is_nested) = (matches!(dialect, G1 | Union), dialect != G1);
        let names_service = matches!(dialect, G2 | Union);
        // Only the second generation tells the port, and only of what it deregisters.
        let tells_port = dialect == Union || (dialect == G2 && grace_period.is_none());
        go_json(&LeavingBody {
            app_id: is_nested.then_some(app.id.as_str()),
            app_instance_id: is_nested.then_some(app.instance_id.as_str()),
            service_name: names_service.then_some(service),
            service_port: tells_port.then_some(self.options.server_port),
            name: is_flat.then_some(service),
            port: is_flat.then_some(self.options.server_port),
            grace_period,
        })
    }
}

#[derive(Serialize)]
struct FlatBody<'a> {
    #[serde(flatten)]
    flat: FlatNames<'a>,
    dns: &'a str,
    protocol: &'a str,
    #[serde(flatten)]
    numbers: FlatNumbers<'a>,
    kernel: PlainKernel<'a>,
    methods: &'a [String],
}

#[derive(Serialize)]
struct FlatNames<'a> {
    app_id: &'a str,
    app_name: &'a str,
    name: &'a str,
    namespace: &'a str,
}

#[derive(Serialize)]
struct FlatNumbers<'a> {
    env: &'a str,
    version: &'a str,
    port: u16,
    weight: u16,
}

#[derive(Serialize)]
struct PlainKernel<'a> {
    language: &'a str,
    version: &'a str,
}

/// Clients in Go write the names of its fields.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CapitalKernel<'a> {
    language: &'a str,
    version: &'a str,
}

impl<'a> CapitalKernel<'a> {
    fn of(kernel: &'a Kernel) -> Self {
        Self {
            language: &kernel.language,
            version: &kernel.version,
        }
    }
}

#[derive(Serialize)]
struct AppBody<'a> {
    id: &'a str,
    env: &'a str,
    name: &'a str,
    /// Always empty.
    secret: &'static str,
    version: &'a str,
    instance_id: &'a str,
}

impl<'a> AppBody<'a> {
    fn of(app: &'a App) -> Self {
        Self {
            id: &app.id,
            env: &app.env,
            name: &app.name,
            secret: "",
            version: &app.version,
            instance_id: &app.instance_id,
        }
    }
}

#[derive(Serialize)]
struct NestedBody<'a> {
    app: AppBody<'a>,
    kernel: CapitalKernel<'a>,
    service: &'a crate::wire::Service,
    protocol: &'a str,
    server_port: u16,
    managed_port: u16,
    dns: &'a str,
    run_date: &'a str,
    proto_count: usize,
    methods: &'a [String],
    #[serde(skip_serializing_if = "<[HttpRoute]>::is_empty")]
    http_routes: &'a [HttpRoute],
}

#[derive(Serialize)]
struct NestedRest<'a> {
    server_port: u16,
    managed_port: u16,
    run_date: &'a str,
    proto_count: usize,
}

#[derive(Serialize)]
struct UnionBody<'a> {
    #[serde(flatten)]
    flat: FlatNames<'a>,
    dns: &'a str,
    protocol: &'a str,
    #[serde(flatten)]
    numbers: FlatNumbers<'a>,
    kernel: PlainKernel<'a>,
    methods: &'a [String],
    app: AppBody<'a>,
    service: &'a crate::wire::Service,
    #[serde(flatten)]
    rest: NestedRest<'a>,
    /// No agent of the reference system reads it, and none sees it from a service that is ready.
    #[serde(skip_serializing_if = "is_true")]
    ready: bool,
    #[serde(skip_serializing_if = "<[HttpRoute]>::is_empty")]
    http_routes: &'a [HttpRoute],
}

#[derive(Serialize)]
struct LeavingBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    app_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_instance_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grace_period: Option<&'a str>,
}

/// JSON as Go writes it: what could end a script in HTML is escaped, and so are the line ends that JavaScript knows besides.
fn go_json(body: &impl Serialize) -> Vec<u8> {
    // Text and numbers always have a JSON form.
    let json = serde_json::to_string(body).unwrap_or_default();
    // None of these stands outside of a text.
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(escaped, "\\u{:04x}", u32::from(c));
            }
            c => escaped.push(c),
        }
    }
    escaped.into_bytes()
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
