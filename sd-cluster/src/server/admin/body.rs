//! The bodies of answers.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::protocol::declaration::MetricsAutodiscovery;
use crate::server::{
    KnownInstance, KnownModule, StoredConfig, Variable, VariableKind, VariableView,
};

#[derive(Serialize)]
pub(super) struct ModuleBody<'a> {
    name: &'a str,
    connections: usize,
    instances: Vec<InstanceBody<'a>>,
    config_version: Option<u32>,
    schema_version: Option<&'a str>,
    known_since: String,
    last_connected_at: Option<String>,
    last_disconnected_at: Option<String>,
}

#[derive(Serialize)]
struct InstanceBody<'a> {
    host: &'a str,
    port: &'a str,
    version: &'a str,
    lib_version: &'a str,
    transport: &'a str,
    endpoints: usize,
}

impl<'a> From<&'a KnownModule> for ModuleBody<'a> {
    fn from(module: &'a KnownModule) -> Self {
        Self {
            name: &module.name,
            connections: module.connections,
            instances: module.instances.iter().map(InstanceBody::from).collect(),
            config_version: module.config_version,
            schema_version: module.schema_version.as_deref(),
            known_since: time(module.known_since),
            last_connected_at: module.last_connected_at.map(time),
            last_disconnected_at: module.last_disconnected_at.map(time),
        }
    }
}

impl<'a> From<&'a KnownInstance> for InstanceBody<'a> {
    fn from(instance: &'a KnownInstance) -> Self {
        Self {
            host: &instance.address.ip,
            port: &instance.address.port,
            version: &instance.version,
            lib_version: &instance.lib_version,
            transport: &instance.transport,
            endpoints: instance.endpoints,
        }
    }
}

#[derive(Serialize)]
pub(super) struct VersionBody<'a> {
    version: u32,
    written_at: String,
    data: &'a str,
}

impl<'a> From<&'a StoredConfig> for VersionBody<'a> {
    fn from(config: &'a StoredConfig) -> Self {
        Self {
            version: config.version(),
            written_at: time(config.written_at()),
            data: config.data(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Written {
    pub(super) version: u32,
}

#[derive(Serialize)]
pub(super) struct VariableBody<'a> {
    name: &'a str,
    kind: &'a str,
    value: &'a str,
    description: &'a str,
    written_at: String,
    used_by: Vec<&'a str>,
}

impl<'a> From<&'a VariableView> for VariableBody<'a> {
    fn from(variable: &'a VariableView) -> Self {
        Self {
            name: &variable.name,
            kind: variable.kind.as_str(),
            value: &variable.value,
            description: &variable.description,
            written_at: time(variable.written_at),
            used_by: variable.used_by.iter().map(|name| &**name).collect(),
        }
    }
}

/// A variable as an operator writes it. Not shown, because it may be a secret.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenVariable {
    kind: Kind,
    value: String,
    #[serde(default)]
    description: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Kind {
    Text,
    Secret,
}

impl From<WrittenVariable> for Variable {
    fn from(written: WrittenVariable) -> Self {
        let kind = match written.kind {
            Kind::Text => VariableKind::Text,
            Kind::Secret => VariableKind::Secret,
        };
        Self::new(kind, written.value).described(written.description)
    }
}

/// As Prometheus reads it.
#[derive(Serialize)]
pub(super) struct Target<'a> {
    targets: [&'a str; 1],
    labels: &'a BTreeMap<String, String>,
}

impl<'a> From<&'a MetricsAutodiscovery> for Target<'a> {
    fn from(metrics: &'a MetricsAutodiscovery) -> Self {
        Self {
            targets: [&metrics.address],
            labels: &metrics.labels,
        }
    }
}

#[derive(Serialize)]
pub(super) struct Failed {
    pub(super) error: String,
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}
