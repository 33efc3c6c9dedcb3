//! Between an [`Instance`] and what modules tell of themselves. Pure functions.
//!
//! A declaration has a version, a transport and endpoints, and a list of hosts has addresses alone. Nothing says an id, a run, a weight or
//! whether an instance is ready: modules that are not ready are not announced.

pub(crate) mod names;

use std::collections::BTreeMap;
use std::sync::Arc;

use sd_backend::read_json;
use sd_core::clock::Moment;
use sd_core::{
    Address, Error, Incarnation, Instance, InstanceId, Printable, Revision, ServiceName, Skipped,
    Snapshot,
};
use serde::de::DeserializeOwned;

use crate::config::ClusterConfig;
use crate::config::transport::Transport;
use crate::protocol::address::AddressConfiguration;
use crate::protocol::declaration::BackendDeclaration;
use crate::protocol::requirements::ModuleDependency;

/// The metadata key of the transport: `grpc`, `http` or `empty`.
pub const TRANSPORT: &str = "transport";
/// The metadata key of what can be called, as JSON: a list of [`EndpointDescriptor`](crate::EndpointDescriptor).
pub const ENDPOINTS: &str = "endpoints";
/// The metadata key of the modules that are called, as JSON: a list of [`ModuleDependency`].
pub const REQUIRED_MODULES: &str = "required_modules";
/// The metadata key of the version of the library by which a module is connected. It is read, and not written.
pub const LIB_VERSION: &str = "lib_version";

/// The version of this library, as modules in Go write theirs.
const OWN_LIB_VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// Lists say nothing of runs, so that all runs at one address are one.
const RUN: Incarnation = Incarnation::from_u64(0);

/// What is told of an instance when it is ready. What its metadata does not say, `config` does, if it is one of the module that this process
/// is.
///
/// # Errors
/// `InvalidInput` if other hosts cannot reach it, or a service may not handle its address, or its metadata is not what it must be.
pub(crate) fn declaration(
    op: &'static str,
    config: &ClusterConfig,
    instance: &Instance,
) -> Result<BackendDeclaration, Error> {
    let mut address = AddressConfiguration::of(instance.endpoint()).ok_or_else(|| {
        Error::invalid_input(
            op,
            "a module serves at a host and a port, not at a Unix socket",
        )
    })?;
    if !config.allow_ipv6
        && let Address::Tcp { host, .. } = instance.endpoint().address()
        && host.contains(':')
    {
        return Err(Error::invalid_input(
            op,
            "a config service may not handle an IPv6 address: register an IPv4 address or a name, or set allow_ipv6, which writes it in \
             brackets, as isp-config-service can read it",
        ));
    }
    if address.ip.contains(':') {
        // isp-config-service puts a colon and the port behind it. Without brackets it cannot take them apart again, and the routes of
        // all modules end.
        address.ip = format!("[{}]", address.ip);
    }
    names::check_module(op, instance.service())?;
    let is_own = instance.service().as_str() == config.module_name;
    let said = |key| instance.metadata().get(key);
    let endpoints = match said(ENDPOINTS) {
        Some(json) => read_metadata(op, ENDPOINTS, json)?,
        None if is_own => config.serves.clone(),
        None => Vec::new(),
    };
    let required_modules = match said(REQUIRED_MODULES) {
        Some(json) => read_metadata(op, REQUIRED_MODULES, json)?,
        None if is_own => dependencies(config),
        None => Vec::new(),
    };
    let transport = match said(TRANSPORT) {
        Some(said) => Transport::named(said).ok_or_else(|| {
            let why = "the metadata entry transport: write grpc, http or empty";
            Error::invalid_input(op, why)
        })?,
        None => config.transport,
    };
    if transport == Transport::Http && endpoints.iter().any(|one| one.http_method.is_empty()) {
        let why = "the metadata entry endpoints: with the transport http, each endpoint needs its httpMethod";
        return Err(Error::invalid_input(op, why));
    }
    let metrics = config.metrics_autodiscovery.as_ref().filter(|_| is_own);
    Ok(BackendDeclaration {
        module_name: instance.service().as_str().to_owned(),
        version: instance.version().unwrap_or(&config.version).to_owned(),
        lib_version: OWN_LIB_VERSION.to_owned(),
        transport: transport.as_str().to_owned(),
        endpoints,
        required_modules,
        address,
        metrics_autodiscovery: metrics.cloned(),
    })
}

fn read_metadata<T: DeserializeOwned>(op: &'static str, key: &str, json: &str) -> Result<T, Error> {
    read_json(json.as_bytes())
        .map_err(|why| Error::invalid_input(op, format!("the metadata entry {key}: {why}")))
}

fn dependencies(config: &ClusterConfig) -> Vec<ModuleDependency> {
    let dependency = |required| {
        move |name: &String| ModuleDependency {
            name: name.clone(),
            required,
        }
    };
    let required = config.required_modules.iter().map(dependency(true));
    let optional = config.optional_modules.iter().map(dependency(false));
    required.chain(optional).collect()
}

/// The set of a service that these addresses are. Of several entries with one address one is left: during an update of a module there are
/// two.
pub(crate) fn set_of_hosts(
    service: &ServiceName,
    position: (Revision, Moment),
    hosts: &[AddressConfiguration],
) -> Snapshot {
    set(service, position, hosts.iter().map(|host| (host, None)))
}

/// The set of a service that the routes tell, by the names that modules say themselves.
pub(crate) fn set_of_routes(
    service: &ServiceName,
    position: (Revision, Moment),
    routes: &[BackendDeclaration],
) -> Snapshot {
    let of_service = routes
        .iter()
        .filter(|route| route.module_name == service.as_str());
    set(
        service,
        position,
        of_service.map(|route| (&route.address, Some(route))),
    )
}

fn set<'a>(
    service: &ServiceName,
    (revision, as_of): (Revision, Moment),
    entries: impl Iterator<Item = (&'a AddressConfiguration, Option<&'a BackendDeclaration>)>,
) -> Snapshot {
    let (mut instances, mut skipped) = (BTreeMap::new(), Vec::new());
    for (address, route) in entries {
        match instance(service, address, route) {
            // The first one is the newest: lists are in that order.
            Ok(instance) => {
                let id = instance.id().clone();
                instances.entry(id).or_insert_with(|| Arc::new(instance));
            }
            Err(error) => {
                let key = format!("{}:{}", address.ip, address.port);
                skipped.push(Skipped::new(
                    Printable(&key).to_string(),
                    error.report().to_string(),
                ));
            }
        }
    }
    let instances = instances.into_values().collect();
    Snapshot::new(service.clone(), revision, as_of, instances).with_skipped(skipped)
}

fn instance(
    service: &ServiceName,
    address: &AddressConfiguration,
    route: Option<&BackendDeclaration>,
) -> Result<Instance, Error> {
    let endpoint = address.endpoint()?;
    let id = InstanceId::new(endpoint.to_string())?;
    let mut instance = Instance::of_run(service.clone(), id, RUN, endpoint);
    let Some(route) = route else {
        return Ok(instance);
    };
    if !route.version.is_empty() {
        instance = instance.with_version(&route.version);
    }
    let transport = match route.transport.as_str() {
        "" => "grpc",
        transport => transport,
    };
    instance = instance.with_metadata(TRANSPORT, transport);
    if !route.lib_version.is_empty() {
        instance = instance.with_metadata(LIB_VERSION, &route.lib_version);
    }
    // Lists of plain data can always be written.
    if !route.endpoints.is_empty()
        && let Ok(json) = serde_json::to_string(&route.endpoints)
    {
        instance = instance.with_metadata(ENDPOINTS, json);
    }
    if !route.required_modules.is_empty()
        && let Ok(json) = serde_json::to_string(&route.required_modules)
    {
        instance = instance.with_metadata(REQUIRED_MODULES, json);
    }
    Ok(instance)
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;
    use crate::protocol::declaration::MetricsAutodiscovery;
    use crate::protocol::endpoint::EndpointDescriptor;

    const OP: &str = "test";

    fn config() -> ClusterConfig {
        ClusterConfig::new(["h"])
            .with_module("B")
            .with_version("1.2.3")
            .with_required_module("A")
            .with_optional_module("C")
            .with_metrics_autodiscovery(MetricsAutodiscovery::new("h:1"))
            .with_served(EndpointDescriptor::new("b/do").with_inner(true))
    }

    fn position() -> (Revision, Moment) {
        (Revision::new("d", 1), Moment::ZERO)
    }

    fn service(name: &str) -> ServiceName {
        ServiceName::new(name).unwrap()
    }

    fn host(ip: &str, port: &str) -> AddressConfiguration {
        AddressConfiguration {
            ip: ip.to_owned(),
            port: port.to_owned(),
        }
    }

    #[test]
    fn a_declaration_says_what_the_configuration_and_the_instance_say() {
        let instance = Instance::new("B", "10.0.0.1:9999").unwrap();
        let told = declaration(OP, &config(), &instance).unwrap();
        let json = serde_json::to_string(&told).unwrap();
        let expected = format!(
            r#"{{"moduleName":"B","version":"1.2.3","libVersion":"{OWN_LIB_VERSION}","transport":"grpc","endpoints":[{{"path":"b/do","inner":true,"userAuthRequired":false,"httpMethod":"","extra":null}}],"requiredModules":[{{"name":"A","required":true}},{{"name":"C","required":false}}],"address":{{"ip":"10.0.0.1","port":"9999"}},"metricsAutodiscovery":{{"address":"h:1","labels":{{}}}}}}"#
        );
        assert_eq!(json, expected);
        let other = instance
            .with_version("2")
            .with_metadata(TRANSPORT, "http")
            .with_metadata(ENDPOINTS, r#"[{"path":"x","httpMethod":"GET"}]"#)
            .with_metadata(REQUIRED_MODULES, "[]");
        let told = declaration(OP, &config(), &other).unwrap();
        assert_eq!(
            (told.version.as_str(), told.transport.as_str()),
            ("2", "http")
        );
        assert_eq!(told.endpoints[0].http_method, "GET");
        assert!(told.required_modules.is_empty());
        // What this process needs and serves is not what another module does.
        let other = Instance::new("D", "10.0.0.1:9999").unwrap();
        let told = declaration(OP, &config(), &other).unwrap();
        assert!(told.endpoints.is_empty() && told.required_modules.is_empty());
        assert_eq!(told.metrics_autodiscovery, None);
    }

    #[test]
    fn what_no_module_can_be_is_refused() {
        let config = config();
        for (service, address, why) in [
            ("B", "unix:/run/b.sock", "Unix socket"),
            ("B", "[fe80::1]:9999", "allow_ipv6"),
            ("a||b", "h:1", "||"),
        ] {
            let instance = Instance::new(service, address).unwrap();
            let error = declaration(OP, &config, &instance).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(
                error.report().to_string().contains(why),
                "{}",
                error.report()
            );
        }
        let garbage = Instance::new("B", "h:1")
            .unwrap()
            .with_metadata(ENDPOINTS, "x");
        assert!(declaration(OP, &config, &garbage).is_err());
        let of_transport = |name: &str| {
            let instance = Instance::new("B", "h:1").unwrap();
            instance.with_metadata(TRANSPORT, name)
        };
        for transport in ["GRPC", "", "tcp"] {
            let unknown = declaration(OP, &config, &of_transport(transport));
            assert_eq!(unknown.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        let without_method = of_transport("http").with_metadata(ENDPOINTS, r#"[{"path":"a"}]"#);
        assert!(declaration(OP, &config, &without_method).is_err());
        let ipv6 = Instance::new("B", "[fe80::1]:9999").unwrap();
        let told = declaration(OP, &config.with_allow_ipv6(true), &ipv6).unwrap();
        assert_eq!(told.address, host("[fe80::1]", "9999"));
    }

    #[test]
    fn a_set_has_each_address_once_and_names_what_is_none() {
        let hosts = [
            host("10.0.0.1", "9999"),
            host("fe80::1", "81"),
            host("10.0.0.1", "9999"),
            host("10.0.0.2", "none"),
        ];
        let set = set_of_hosts(&service("A"), position(), &hosts);
        let endpoints: Vec<_> = (set.instances().iter())
            .map(|instance| instance.endpoint().to_string())
            .collect();
        assert_eq!(endpoints, ["10.0.0.1:9999", "[fe80::1]:81"]);
        assert_eq!(set.skipped_count(), 1);
        assert!(set_of_hosts(&service("A"), position(), &[]).is_empty());
    }

    #[test]
    fn routes_tell_what_a_declaration_told_and_only_of_their_module() {
        let instance = Instance::new("B", "10.0.0.1:9999").unwrap();
        let told = declaration(OP, &config(), &instance).unwrap();
        let set = set_of_routes(&service("B"), position(), std::slice::from_ref(&told));
        let read = &set.instances()[0];
        assert_eq!(read.version(), Some("1.2.3"));
        assert_eq!(read.metadata()[TRANSPORT], "grpc");
        // What was read can be told again.
        assert_eq!(
            declaration(OP, &ClusterConfig::new(["h"]), read)
                .unwrap()
                .endpoints,
            told.endpoints
        );
        assert!(set_of_routes(&service("b"), position(), &[told]).is_empty());
    }
}
