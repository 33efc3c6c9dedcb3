//! What a module needs of others.

use serde::{Deserialize, Serialize};

use crate::protocol::lenient::null_is_default;

/// The payload of `MODULE:SEND_REQUIREMENTS`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ModuleRequirements {
    #[serde(alias = "RequiredModules", deserialize_with = "null_is_default")]
    pub(crate) required_modules: Vec<String>,
    #[serde(alias = "RequireRoutes", deserialize_with = "null_is_default")]
    pub(crate) require_routes: bool,
}

/// A module that another one calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModuleDependency {
    /// The name of the module that is called.
    #[serde(alias = "Name", deserialize_with = "null_is_default")]
    pub name: String,
    /// Whether the caller cannot do without it.
    #[serde(alias = "Required", deserialize_with = "null_is_default")]
    pub required: bool,
}
