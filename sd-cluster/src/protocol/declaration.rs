//! What a module tells of itself when it is ready, and what the routes say of each.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::protocol::address::AddressConfiguration;
use crate::protocol::endpoint::EndpointDescriptor;
use crate::protocol::lenient::read_as_go;
use crate::protocol::requirements::ModuleDependency;

/// What the monitoring is told of a module. The service lists it for Prometheus, and does not repeat it in the routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MetricsAutodiscovery {
    /// Where the metrics are, `host:port`.
    pub address: String,
    /// The labels of the target, such as `__metrics_path__` and `app`.
    pub labels: BTreeMap<String, String>,
}

read_as_go!(MetricsAutodiscovery {
    "address" => address,
    "labels" => labels,
});

impl MetricsAutodiscovery {
    /// Metrics at this address, `host:port`, without labels.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            labels: BTreeMap::new(),
        }
    }

    /// Sets a label of the target.
    #[must_use]
    pub fn with_label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }
}

/// What a module tells of itself: the payload of `MODULE:READY`, and one entry of the routes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct BackendDeclaration {
    /// The name of the module, as it says itself. The service does not check it.
    pub module_name: String,
    /// The version of the module.
    pub version: String,
    /// The version of the library by which it is connected.
    pub lib_version: String,
    /// `grpc`, `http` or `empty`. Empty stands for `grpc`.
    pub transport: String,
    /// What can be called there.
    pub endpoints: Vec<EndpointDescriptor>,
    /// The modules that it calls.
    pub required_modules: Vec<ModuleDependency>,
    /// Where it serves.
    pub address: AddressConfiguration,
    /// What the monitoring is told. `None` in routes.
    pub metrics_autodiscovery: Option<MetricsAutodiscovery>,
}

read_as_go!(BackendDeclaration {
    "moduleName" => module_name,
    "version" => version,
    "libVersion" => lib_version,
    "transport" => transport,
    "endpoints" => endpoints,
    "requiredModules" => required_modules,
    "address" => address,
    "metricsAutodiscovery" => metrics_autodiscovery,
});

/// All modules that are ready: the payload of the events of routes.
pub type RoutingConfig = Vec<BackendDeclaration>;

#[cfg(test)]
mod tests {
    use super::*;

    /// As a client in Go sent it.
    const READY: &str = r#"{"moduleName":"B","version":"1.2.3","libVersion":"v1.67.2","transport":"grpc","endpoints":[{"path":"b/do","inner":true,"userAuthRequired":false,"httpMethod":"","extra":{"reqAdminPerm":"perm"}}],"requiredModules":[{"name":"A","required":true}],"address":{"ip":"10.0.0.1","port":"9999"},"metricsAutodiscovery":null}"#;

    #[test]
    fn a_declaration_is_read_and_written_as_a_module_in_go_does() {
        let read: BackendDeclaration = serde_json::from_str(READY).unwrap();
        assert_eq!(read.endpoints[0].required_admin_permission(), Some("perm"));
        assert_eq!(serde_json::to_string(&read).unwrap(), READY);
    }

    #[test]
    fn null_missing_and_empty_are_alike_and_unknown_keys_pass() {
        let expected = BackendDeclaration {
            module_name: "A".to_owned(),
            ..BackendDeclaration::default()
        };
        for json in [
            r#"{"moduleName":"A"}"#,
            r#"{"ModuleName":"A","endpoints":null,"requiredModules":null,"address":null,"metricsAutodiscovery":null}"#,
            r#"{"moduleName":"A","endpoints":[],"requiredModules":[],"colour":"red","version":null}"#,
        ] {
            let read: BackendDeclaration = serde_json::from_str(json).unwrap();
            assert_eq!(read, expected, "{json}");
        }
        let wrong = serde_json::from_str::<BackendDeclaration>(r#"{"moduleName":1}"#);
        assert!(wrong.is_err());
    }

    #[test]
    fn metrics_are_written_with_their_labels() {
        let metrics = MetricsAutodiscovery::new("h:1").with_label("app", "a");
        let json = serde_json::to_string(&metrics).unwrap();
        assert_eq!(json, r#"{"address":"h:1","labels":{"app":"a"}}"#);
        let read: MetricsAutodiscovery = serde_json::from_str(r#"{"labels":null}"#).unwrap();
        assert!(read.labels.is_empty());
    }
}
