//! What a module needs of others.

use serde::Serialize;

use crate::protocol::lenient::read_as_go;

/// The payload of `MODULE:SEND_REQUIREMENTS`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModuleRequirements {
    pub(crate) required_modules: Vec<String>,
    pub(crate) require_routes: bool,
}

read_as_go!(ModuleRequirements {
    "requiredModules" => required_modules,
    "requireRoutes" => require_routes,
});

/// A module that another one calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ModuleDependency {
    /// The name of the module that is called.
    pub name: String,
    /// Whether the caller cannot do without it.
    pub required: bool,
}

read_as_go!(ModuleDependency {
    "name" => name,
    "required" => required,
});
