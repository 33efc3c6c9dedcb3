//! The names of events.

/// A module tells its version, the schema of its configuration and its default configuration.
pub const MODULE_SEND_CONFIG_SCHEMA: &str = "MODULE:SEND_CONFIG_SCHEMA";
/// A module tells which modules it calls, and whether it wants the routes.
pub const MODULE_SEND_REQUIREMENTS: &str = "MODULE:SEND_REQUIREMENTS";
/// A module is ready to be called.
pub const MODULE_READY: &str = "MODULE:READY";
/// The service sends a module its configuration when it connects.
pub const CONFIG_SEND_CONFIG_WHEN_CONNECTED: &str = "CONFIG:SEND_CONFIG_WHEN_CONNECTED";
/// The service sends a module its changed configuration.
pub const CONFIG_SEND_CONFIG_CHANGED: &str = "CONFIG:SEND_CONFIG_CHANGED";
/// The service sends a module the routes when it connects.
pub const CONFIG_SEND_ROUTES_WHEN_CONNECTED: &str = "CONFIG:SEND_ROUTES_WHEN_CONNECTED";
/// The service sends a module the changed routes.
pub const CONFIG_SEND_ROUTES_CHANGED: &str = "CONFIG:SEND_ROUTES_CHANGED";
/// The service refuses a module's configuration. Services of version 3 never send it.
pub const ERROR_CONFIG: &str = "ERROR_CONFIG";
/// The service refuses a module. Services of version 3 never send it.
pub const ERROR_CONNECTION: &str = "ERROR_CONNECTION";
/// The end of the name of the event with the addresses of a module.
pub const MODULE_CONNECTED_SUFFIX: &str = "MODULE_CONNECTED";

/// The only answer to an event that means success.
pub(crate) const OK: &[u8] = b"ok";
/// Where a service is asked for a connection. Without the slash at its end, the service sends clients elsewhere.
pub(crate) const PATH: &str = "/isp-etp/";
/// The parameter that names the module.
pub(crate) const MODULE_NAME: &str = "module_name";

/// The name of the event with the addresses of a module.
///
/// ```
/// assert_eq!(sd_cluster::events::module_connected("auth"), "auth_MODULE_CONNECTED");
/// ```
pub fn module_connected(module: &str) -> String {
    format!("{module}_{MODULE_CONNECTED_SUFFIX}")
}
