//! What operators are shown.

use std::sync::Arc;
use std::time::SystemTime;

use super::configs::unknown;
use super::{Backend, Module, State, StoredConfig, VariableKind};
use crate::protocol::address::AddressConfiguration;
use crate::protocol::declaration::{BackendDeclaration, MetricsAutodiscovery};

/// A module that the service knows: it is connected, or has a configuration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KnownModule {
    /// Its name.
    pub name: Arc<str>,
    /// Connections that are open, also those that are not ready.
    pub connections: usize,
    /// Those that are ready, the newest first, and those that were when the service was started again and are not back yet.
    pub instances: Vec<KnownInstance>,
    /// The newest version of its configuration.
    pub config_version: Option<u32>,
    /// The module's version when it sent the schema.
    pub schema_version: Option<String>,
    /// The JSON schema of its configuration. May hold secrets as defaults.
    pub schema: Option<Arc<str>>,
    /// Since when this process knows it.
    pub known_since: SystemTime,
    /// When a connection began last, in the life of this process.
    pub last_connected_at: Option<SystemTime>,
    /// When one ended last.
    pub last_disconnected_at: Option<SystemTime>,
}

/// An instance that is ready.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KnownInstance {
    /// Where it is reached, unless it serves nothing.
    pub address: AddressConfiguration,
    /// Its version.
    pub version: String,
    /// That of the library that it speaks to the service with.
    pub lib_version: String,
    /// `grpc`, `http` or `empty`.
    pub transport: String,
    /// How many endpoints it has declared.
    pub endpoints: usize,
}

/// A variable as operators see it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VariableView {
    /// Its name.
    pub name: Arc<str>,
    /// Whether its value is shown.
    pub kind: VariableKind,
    /// Its value. Empty if it is a secret.
    pub value: String,
    /// What it is for.
    pub description: String,
    /// When it was written.
    pub written_at: SystemTime,
    /// The modules whose configuration uses it.
    pub used_by: Vec<Arc<str>>,
}

impl State {
    pub(crate) fn view_modules(&self) -> Vec<KnownModule> {
        let modules = self.modules.iter();
        modules
            .map(|(name, module)| self.view(name, module))
            .collect()
    }

    /// # Errors
    /// `NotFound`
    pub(crate) fn view_module(&self, name: &str) -> sd_core::Result<KnownModule> {
        let found = self.modules.get_key_value(name);
        let (name, module) = found.ok_or_else(|| unknown("config service: read a module", name))?;
        Ok(self.view(name, module))
    }

    fn view(&self, name: &Arc<str>, module: &Module) -> KnownModule {
        let places = module.backends.iter().rev();
        let backends = places.filter_map(|place| self.backends.get(place));
        KnownModule {
            name: Arc::clone(name),
            connections: module.sessions.len(),
            instances: backends.map(instance).collect(),
            config_version: module.stored.config().map(StoredConfig::version),
            schema_version: module
                .stored
                .schema
                .as_ref()
                .map(|schema| schema.version.clone()),
            schema: module
                .stored
                .schema
                .as_ref()
                .map(|schema| Arc::clone(&schema.data)),
            known_since: module.known_since,
            last_connected_at: module.last_connected_at,
            last_disconnected_at: module.last_disconnected_at,
        }
    }

    pub(crate) fn view_routes(&self) -> Vec<BackendDeclaration> {
        let backends = self.backends.values().rev();
        backends
            .map(|backend| backend.declaration.clone())
            .collect()
    }

    pub(crate) fn view_variables(&self) -> Vec<VariableView> {
        let variables = self.variables.iter().map(|(name, variable)| VariableView {
            name: Arc::clone(name),
            kind: variable.kind,
            value: match variable.kind {
                VariableKind::Text => variable.value.clone(),
                VariableKind::Secret => String::new(),
            },
            description: variable.description.clone(),
            written_at: variable.written_at,
            used_by: self.users(name),
        });
        variables.collect()
    }

    /// Where metrics are read: by module, then the newest first.
    pub(crate) fn view_metrics(&self) -> Vec<MetricsAutodiscovery> {
        let places = self
            .modules
            .values()
            .flat_map(|module| module.backends.iter().rev());
        let backends = places.filter_map(|place| self.backends.get(place));
        backends
            .filter_map(|backend| backend.metrics.clone())
            .collect()
    }
}

fn instance(backend: &Backend) -> KnownInstance {
    let declared = &backend.declaration;
    KnownInstance {
        address: declared.address.clone(),
        version: declared.version.clone(),
        lib_version: declared.lib_version.clone(),
        transport: declared.transport.clone(),
        endpoints: declared.endpoints.len(),
    }
}
