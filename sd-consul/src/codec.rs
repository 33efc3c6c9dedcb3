//! Between an [`Instance`] and a service of Consul's agent. Pure functions.
//!
//! Address, port and tags are where every user of Consul looks for them, metadata is the service's own. What Consul has no place
//! for goes into metadata under keys that begin with `sd-`.

#[cfg(test)]
mod frozen;
#[cfg(test)]
mod golden;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use sd_core::{Address, Endpoint, Error, Incarnation, Instance, InstanceId, Result, ServiceName};
use serde::{Deserialize, Serialize};

use crate::config::ConsulConfig;
use crate::health_check::{Check, CheckDefinition, Health, State};
use crate::maintenance::Reason;

/// The metadata key that names the node of an instance that another program registered.
pub const NODE: &str = "consul-node";
/// The metadata key that names the datacenter of an instance that another program registered.
pub const DATACENTER: &str = "consul-datacenter";

/// What Consul accepts as metadata of a service.
const MOST_PAIRS: usize = 64;
const MOST_KEY_BYTES: usize = 128;
const MOST_VALUE_BYTES: usize = 512;

/// Before the keys that are ours.
const OURS: &str = "sd-";
/// Before the keys that Consul keeps for itself.
const CONSULS: &str = "consul-";
/// Before a key that Consul would not take as it is.
const ESCAPED_KEY: &str = "sd-k-";
const INCARNATION: &str = "sd-incarnation";
const VERSION: &str = "sd-version";
const ZONE: &str = "sd-zone";
const WEIGHT: &str = "sd-weight";
const PRIORITY: &str = "sd-priority";
/// Where others commonly say which version they are.
const THEIR_VERSION: &str = "version";

/// A service as it is registered at an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServiceDefinition {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "String::is_empty")]
    socket_path: String,
    tags: BTreeSet<String>,
    meta: BTreeMap<String, String>,
    weights: Weights,
    check: CheckDefinition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u16,
    warning: u16,
}

/// A service as an agent or a server tells it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Service {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    /// The name of the service.
    #[serde(rename = "Service", default)]
    pub(crate) name: String,
    tags: Option<BTreeSet<String>>,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: i64,
    #[serde(default)]
    socket_path: String,
    meta: Option<BTreeMap<String, String>>,
    weights: Option<ReadWeights>,
    #[serde(default)]
    pub(crate) create_index: u64,
    #[serde(default)]
    pub(crate) modify_index: u64,
}

/// Weights as they are read: others may have registered anything.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReadWeights {
    passing: i64,
    warning: i64,
}

/// A node as a server tells it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Node {
    #[serde(rename = "Node")]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) address: String,
    #[serde(default)]
    pub(crate) datacenter: String,
    meta: Option<BTreeMap<String, String>>,
}

/// An instance of a service as a server tells it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HealthEntry {
    pub(crate) node: Node,
    pub(crate) service: Service,
    #[serde(default)]
    pub(crate) checks: Vec<Check>,
}

/// Who an entry is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) id: InstanceId,
    /// The incarnation of a record of ours.
    ours: Option<Incarnation>,
}

/// How entries are read.
#[derive(Clone, Debug)]
pub(crate) struct Codec {
    zone_meta: Option<String>,
    zone_tag: Option<String>,
    /// The worst state that is still well.
    tolerated: State,
}

/// The id of our record at the agent, where the ids of all services share one space. It needs no encoding in a path or a filter. The
/// first colon ends the service's name.
pub(crate) fn service_id(service: &ServiceName, id: &InstanceId) -> String {
    let mut written = String::new();
    escape(service.as_str(), b"-._", &mut written);
    written.push(':');
    escape(id.as_str(), b"-._:@", &mut written);
    written
}

/// Writes letters, digits and what is `plain` as they are, and every other byte as `~` followed by two hexadecimal digits.
fn escape(text: &str, plain: &[u8], written: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            written.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(written, "~{byte:02X}");
        }
    }
}

/// The instance whose id at the agent this is.
fn instance_id(service: &ServiceName, id: &str) -> Option<InstanceId> {
    let (written_service, written) = id.split_once(':')?;
    if unescape(written_service, b'~')? != service.as_str().as_bytes() {
        return None;
    }
    let bytes = unescape(written, b'~')?;
    InstanceId::new(String::from_utf8(bytes).ok()?).ok()
}

/// Whether Consul can be asked for the records of a service of this name.
///
/// # Errors
/// `InvalidInput` says what is in the way.
pub(crate) fn check_service(op: &'static str, service: &ServiceName) -> Result<()> {
    check_path(op, service)?;
    let name = service.as_str();
    if name.contains('"') && name.contains('`') {
        return Err(Error::invalid_input(
            op,
            format!(
                "Consul cannot be asked for the service {service:?}: its filter language cannot quote both \" and ` in one name"
            ),
        ));
    }
    Ok(())
}

/// Whether Consul can be asked for a service of this name at all.
///
/// # Errors
/// `InvalidInput` says what is in the way.
pub(crate) fn check_path(op: &'static str, service: &ServiceName) -> Result<()> {
    let name = service.as_str();
    if let Some(odd) = name.chars().find(|&c| !is_taken_in_paths(c)) {
        return Err(Error::invalid_input(
            op,
            format!(
                "Consul cannot be asked for the service {service:?}: it takes no path with a character that cannot be printed, as {odd:?}"
            ),
        ));
    }
    Ok(())
}

/// Whether Consul takes a path with this character: it has Go's `unicode.IsPrint` decide, which takes letters, marks, numbers,
/// punctuation, symbols and the ASCII space.
fn is_taken_in_paths(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // `Debug` of text leaves the same as they are, marks only after another character.
    let text = String::from_iter(['a', c]);
    text.escape_debug().nth(1) == Some(c)
}

/// Resolves `mark` followed by two hexadecimal digits.
fn unescape(text: &str, mark: u8) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == mark {
            let (digits, after) = after.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Some(bytes)
}

/// A key of the instance's metadata as Consul takes it.
fn encode_key(key: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !key.is_empty()
        && key.bytes().all(is_plain)
        && ![OURS, CONSULS].iter().any(|p| key.starts_with(p))
    {
        return key.to_owned();
    }
    let mut written = ESCAPED_KEY.to_owned();
    for byte in key.bytes() {
        if is_plain(byte) && byte != b'_' {
            written.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(written, "_{byte:02X}");
        }
    }
    written
}

/// The key of an instance's metadata; `None` for what is not the instance's.
fn decode_key(key: &str) -> Option<String> {
    match key.strip_prefix(ESCAPED_KEY) {
        Some(written) => String::from_utf8(unescape(written, b'_')?).ok(),
        None => (!key.starts_with(OURS)).then(|| key.to_owned()),
    }
}

/// The record of an instance, with its check.
///
/// # Errors
/// `InvalidInput` names what Consul would not take, and its limit.
pub(crate) fn encode(
    op: &'static str,
    instance: &Instance,
    check: CheckDefinition,
) -> Result<ServiceDefinition> {
    let (address, port, socket_path) = match instance.endpoint().address() {
        Address::Tcp { host, port } => (host.to_owned(), Some(port), String::new()),
        Address::Unix { path } => (String::new(), None, path.display().to_string()),
        other => {
            return Err(Error::invalid_input(
                op,
                format!("{other:?} is no address that Consul has a place for"),
            ));
        }
    };
    let weight = instance.weight();
    let passing = weight.max(1);
    Ok(ServiceDefinition {
        id: service_id(instance.service(), instance.id()),
        name: instance.service().to_string(),
        address,
        port,
        socket_path,
        tags: instance.tags().clone(),
        meta: encode_meta(op, instance)?,
        weights: Weights {
            passing,
            warning: passing,
        },
        check,
    })
}

fn encode_meta(op: &'static str, instance: &Instance) -> Result<BTreeMap<String, String>> {
    let mut meta: BTreeMap<String, String> = instance
        .metadata()
        .iter()
        .map(|(key, value)| (encode_key(key), value.clone()))
        .collect();
    // Consul has no weight of 0.
    let weight = (instance.weight() == 0).then(|| "0".to_owned());
    let priority = (instance.priority() != 0).then(|| instance.priority().to_string());
    for (key, value) in [
        (INCARNATION, Some(instance.incarnation().to_string())),
        (VERSION, instance.version().map(str::to_owned)),
        (ZONE, instance.zone().map(str::to_owned)),
        (WEIGHT, weight),
        (PRIORITY, priority),
    ] {
        if let Some(value) = value {
            meta.insert(key.to_owned(), value);
        }
    }
    if meta.len() > MOST_PAIRS {
        let own = meta.len() - instance.metadata().len();
        return Err(Error::invalid_input(
            op,
            format!(
                "metadata has {} entries: Consul takes {MOST_PAIRS}, of which {own} are taken by version, zone and the like",
                instance.metadata().len(),
            ),
        ));
    }
    for (key, value) in &meta {
        if key.len() > MOST_KEY_BYTES {
            return Err(Error::invalid_input(
                op,
                format!(
                    "the metadata key {key:?} is {} bytes long as it is written: Consul takes {MOST_KEY_BYTES}",
                    key.len()
                ),
            ));
        }
        if value.len() > MOST_VALUE_BYTES {
            return Err(Error::invalid_input(
                op,
                format!(
                    "the metadata value of {key:?} is {} bytes long: Consul takes {MOST_VALUE_BYTES}",
                    value.len()
                ),
            ));
        }
    }
    Ok(meta)
}

/// A record as a transaction replaces it in the catalog.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CatalogRecord<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    service: &'a str,
    address: &'a str,
    port: Option<u16>,
    tags: &'a BTreeSet<String>,
    meta: &'a BTreeMap<String, String>,
    weights: Weights,
    /// Which modification it replaces.
    modify_index: u64,
}

impl ServiceDefinition {
    /// The same, with a check that begins as failing.
    pub(crate) fn critical(&self) -> Self {
        let mut begun = self.clone();
        begun.check = begun.check.critical();
        begun
    }

    /// In place of the record that was last modified at `index`.
    pub(crate) fn in_place_of(&self, index: u64) -> CatalogRecord<'_> {
        CatalogRecord {
            id: &self.id,
            service: &self.name,
            address: &self.address,
            port: self.port,
            tags: &self.tags,
            meta: &self.meta,
            weights: self.weights,
            modify_index: index,
        }
    }
}

impl Service {
    /// Which run of which instance of ours this is; `None` for what others registered.
    pub(crate) fn run_of(&self, service: &ServiceName) -> Option<(InstanceId, Incarnation)> {
        let incarnation = self.meta.as_ref()?.get(INCARNATION)?.parse().ok()?;
        Some((instance_id(service, &self.id)?, incarnation))
    }

    /// Where it says itself that clients dial it. A record of ours does; another may mean the address of its node.
    pub(crate) fn own_endpoint(&self) -> Result<Endpoint> {
        if !self.socket_path.is_empty() {
            return Endpoint::unix(Path::new(&self.socket_path));
        }
        Endpoint::tcp(&self.address, u16::try_from(self.port).unwrap_or(0))
    }

    fn endpoint(&self, node: &Node) -> Result<Endpoint> {
        if self.socket_path.is_empty() && self.address.is_empty() {
            return Endpoint::tcp(&node.address, u16::try_from(self.port).unwrap_or(0));
        }
        self.own_endpoint()
    }
}

impl HealthEntry {
    /// The name that it is registered under, if that is not `service` but only the same to Consul, which ignores case.
    pub(crate) fn other_name(&self, service: &ServiceName) -> Option<&str> {
        let name = self.service.name.as_str();
        (!name.is_empty() && name != service.as_str()).then_some(name)
    }

    /// Who it is. What others registered is only unique together with its node.
    pub(crate) fn identity(&self, service: &ServiceName) -> Result<Identity, String> {
        if let Some((id, incarnation)) = self.service.run_of(service) {
            let ours = Some(incarnation);
            return Ok(Identity { id, ours });
        }
        let id = InstanceId::new(format!("{}@{}", self.service.id, self.node.name));
        let id = id.map_err(|error| report(&error))?;
        Ok(Identity { id, ours: None })
    }
}

impl ReadWeights {
    fn in_state(self, state: State) -> u16 {
        let weight = match state {
            State::Passing => self.passing,
            State::Warning | State::Critical => self.warning,
        };
        u16::try_from(weight.max(0)).unwrap_or(u16::MAX)
    }
}

impl Codec {
    pub(crate) fn new(config: &ConsulConfig) -> Self {
        Self {
            zone_meta: Some(config.zone_meta.clone()),
            zone_tag: config.zone_tag.clone(),
            tolerated: if config.warnings {
                State::Warning
            } else {
                State::Passing
            },
        }
    }

    /// Reads what was registered and nothing else, in whatever state.
    pub(crate) const fn verbatim() -> Self {
        Self {
            zone_meta: None,
            zone_tag: None,
            tolerated: State::Critical,
        }
    }

    /// The instance that an entry stands for; `None` while it is not well. An error says why it cannot be understood.
    pub(crate) fn decode(
        &self,
        service: &ServiceName,
        entry: HealthEntry,
    ) -> Result<Option<Instance>, String> {
        let identity = entry.identity(service);
        self.decode_identified(service, identity, entry)
    }

    /// As [`decode`](Self::decode), with the [identity](HealthEntry::identity) of the entry.
    pub(crate) fn decode_identified(
        &self,
        service: &ServiceName,
        identity: Result<Identity, String>,
        entry: HealthEntry,
    ) -> Result<Option<Instance>, String> {
        let health = Health::of(&entry.checks);
        if health.state > self.tolerated {
            return Ok(None);
        }
        if let Some(other) = entry.other_name(service) {
            return Err(format!(
                "it is registered under the name {other:?}: Consul ignores case, we do not"
            ));
        }
        let Identity { id, ours } = identity?;
        let maintenance = Reason::of(&entry.checks, &entry.service.id);
        let is_ours = ours.is_some();
        let incarnation = ours.unwrap_or(Incarnation::from_u64(entry.service.create_index));
        let HealthEntry {
            node,
            service: read,
            ..
        } = entry;
        let endpoint = read.endpoint(&node).map_err(|error| report(&error))?;
        let meta = read.meta.unwrap_or_default();
        let tags = read.tags.unwrap_or_default();
        let number = |key: &str| meta.get(key).and_then(|text| text.parse::<u16>().ok());
        let consuls = read
            .weights
            .map_or(Instance::DEFAULT_WEIGHT, |w| w.in_state(health.state));
        let mut instance = Instance::of_run(service.clone(), id, incarnation, endpoint)
            .with_ready(!health.node_maintenance)
            .with_weight(number(WEIGHT).unwrap_or(consuls))
            .with_priority(number(PRIORITY).unwrap_or(0));
        match maintenance {
            None => {}
            // What is said of an earlier run under the id says nothing of this one.
            Some(Reason::Override(reason)) if is_ours && reason.incarnation != incarnation => {}
            Some(Reason::Override(reason)) if is_ours => {
                instance = instance.with_override(reason.said);
            }
            // Also one that a record of ours has left on the service of another program: it is Consul's to end, and no other client
            // of Consul gets that service.
            Some(_) => instance = instance.with_ready(false),
        }
        let version = if is_ours { VERSION } else { THEIR_VERSION };
        if let Some(version) = meta.get(version) {
            instance = instance.with_version(version);
        }
        let zone = meta.get(ZONE).map(String::as_str);
        if let Some(zone) = zone.or_else(|| self.zone(&tags, node.meta.as_ref())) {
            instance = instance.with_zone(zone);
        }
        for tag in tags {
            instance = instance.with_tag(tag);
        }
        for (key, value) in meta {
            if let Some(key) = decode_key(&key) {
                instance = instance.with_metadata(key, value);
            }
        }
        if !is_ours {
            instance = instance
                .with_metadata(NODE, node.name)
                .with_metadata(DATACENTER, node.datacenter);
        }
        Ok(Some(instance))
    }

    /// The zone of an instance that does not state one.
    fn zone<'a>(
        &self,
        tags: &'a BTreeSet<String>,
        node: Option<&'a BTreeMap<String, String>>,
    ) -> Option<&'a str> {
        let tagged = self.zone_tag.as_deref().and_then(|prefix| {
            let mut zones = tags.iter().filter_map(|tag| tag.strip_prefix(prefix));
            zones.find(|zone| !zone.is_empty())
        });
        tagged.or_else(|| {
            let zone = node?.get(self.zone_meta.as_deref()?)?;
            Some(zone.as_str()).filter(|zone| !zone.is_empty())
        })
    }
}

fn report(error: &Error) -> String {
    error.report().to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use sd_core::{ErrorKind, Override};
    use serde_json::json;

    use super::*;
    use crate::config::check_kind::CheckKind;

    fn service() -> ServiceName {
        ServiceName::new("greeter").unwrap()
    }

    fn instance() -> Instance {
        Instance::new("greeter", "10.0.0.7:50051")
            .unwrap()
            .with_id(InstanceId::new("g-1").unwrap())
    }

    fn definition(instance: &Instance) -> Result<ServiceDefinition> {
        let config = ConsulConfig::default().with_check(CheckKind::Ttl);
        let check = CheckDefinition::new("test", &config, instance, Duration::from_secs(10))?;
        encode("test", instance, check)
    }

    fn refusal(instance: &Instance) -> String {
        let error = definition(instance).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.report().to_string()
    }

    /// As a server tells what was registered.
    fn told(definition: &ServiceDefinition, checks: &serde_json::Value) -> HealthEntry {
        let node = json!({"Node": "n", "Address": "10.1.1.1", "Datacenter": "dc1", "Meta": null});
        let service = serde_json::to_value(definition).unwrap();
        serde_json::from_value(json!({"Node": node, "Service": service, "Checks": checks})).unwrap()
    }

    fn theirs(service: &serde_json::Value) -> Result<Option<Instance>, String> {
        let config = ConsulConfig::default().with_zone_from_tag("zone=");
        let node = json!({"Node": "n", "Address": "10.1.1.1", "Datacenter": "dc1", "Meta": {"zone": "z1"}});
        let entry = json!({"Node": node, "Service": service, "Checks": []});
        Codec::new(&config).decode(&self::service(), serde_json::from_value(entry).unwrap())
    }

    #[test]
    fn what_every_user_of_consul_needs_is_where_they_look_for_it() {
        let instance = instance()
            .with_incarnation(Incarnation::from_u64(0xabc))
            .with_weight(3)
            .with_zone("a")
            .with_tag("blue")
            .with_metadata("team", "red");
        let mut written = serde_json::to_value(definition(&instance).unwrap()).unwrap();
        written.as_object_mut().unwrap().remove("Check");
        assert_eq!(
            written,
            json!({
                "ID": "greeter:g-1", "Name": "greeter", "Address": "10.0.0.7", "Port": 50051, "Tags": ["blue"],
                "Meta": {"sd-incarnation": "0000000000000abc", "sd-zone": "a", "team": "red"},
                "Weights": {"Passing": 3, "Warning": 3},
            })
        );
    }

    #[test]
    fn ids_of_all_services_share_one_space_without_mixing() {
        for (id, written) in [
            ("a", "greeter:a"),
            ("[::1]:80", "greeter:~5B::1~5D:80"),
            ("a/b", "greeter:a~2Fb"),
            ("a~2Fb", "greeter:a~7E2Fb"),
            ("ß", "greeter:~C3~9F"),
            ("a b", "greeter:a~20b"),
            ("/a/", "greeter:~2Fa~2F"),
        ] {
            let id = InstanceId::new(id).unwrap();
            assert_eq!(service_id(&service(), &id), written);
            assert_eq!(instance_id(&service(), written), Some(id));
        }
        for (service, written) in [
            ("a/b", "a~2Fb:i"),
            ("a:b", "a~3Ab:i"),
            ("a~2Fb", "a~7E2Fb:i"),
            ("größe", "gr~C3~B6~C3~9Fe:i"),
            ("_udp.web", "_udp.web:i"),
            ("two words@x", "two~20words~40x:i"),
        ] {
            let (service, id) = (
                ServiceName::new(service).unwrap(),
                InstanceId::new("i").unwrap(),
            );
            assert_eq!(service_id(&service, &id), written);
            assert_eq!(instance_id(&service, written), Some(id));
        }
        for foreign in [
            "greeter",
            "greeter2:a",
            "a",
            "greeter:~",
            "greeter:~zz",
            "greeter:~FF",
            "greeter:",
        ] {
            assert_eq!(instance_id(&service(), foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_name_that_no_filter_can_hold_is_refused_with_the_reason() {
        let check = |name| check_service("test", &ServiceName::new(name).unwrap());
        for good in ["a", "/a//b/../c", "50%", "\"", "`"] {
            assert!(check(good).is_ok(), "{good}");
        }
        let error = check("\"`").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let report = error.report().to_string();
        assert!(report.contains("quote"), "{report}");
    }

    #[test]
    fn a_name_that_consul_takes_in_no_path_is_refused_with_the_character() {
        let check = |name| check_path("test", &ServiceName::new(name).unwrap());
        for good in [
            "a b",
            "größe",
            "o\u{308}",
            "\u{301}",
            "日本",
            "❤\u{fe0f}",
            "😀",
            "\\'\"",
            "~",
        ] {
            assert!(check(good).is_ok(), "{good:?}");
        }
        for (bad, shown) in [
            ("\u{202e}abc", "202e"),
            ("a\u{a0}b", "a0"),
            ("\u{200b}", "200b"),
            ("a\u{3000}", "3000"),
            ("\u{e000}", "e000"),
        ] {
            let error = check(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let report = error.report().to_string();
            assert!(report.contains(shown), "{report}");
        }
    }

    #[test]
    fn what_is_registered_under_a_name_of_another_case_is_no_instance_and_says_so() {
        let entry = |name: &str| json!({"ID": "web", "Service": name, "Address": "h", "Port": 1});
        assert!(theirs(&entry("greeter")).unwrap().is_some());
        let error = theirs(&entry("Greeter")).unwrap_err();
        assert!(
            error.contains("\"Greeter\"") && error.contains("case"),
            "{error}"
        );
    }

    #[test]
    fn limits_are_checked_before_anything_is_sent_and_named() {
        let many = (0..64).fold(instance(), |i, n| i.with_metadata(n.to_string(), ""));
        assert!(refusal(&many).contains("64"));
        let most = (0..63).fold(instance(), |i, n| i.with_metadata(n.to_string(), ""));
        definition(&most).unwrap();
        let long_key = |length| instance().with_metadata("k".repeat(length), "");
        definition(&long_key(128)).unwrap();
        assert!(refusal(&long_key(129)).contains("128"));
        // Encoded, each of these takes three.
        assert!(refusal(&instance().with_metadata("k k".repeat(40), "")).contains("128"));
        let long_value = |length| instance().with_metadata("k", "v".repeat(length));
        definition(&long_value(512)).unwrap();
        assert!(refusal(&long_value(513)).contains("512"));
        assert!(refusal(&instance().with_zone("z".repeat(513))).contains("sd-zone"));
    }

    #[test]
    fn what_others_registered_is_read_as_they_mean_it() {
        let plain = json!({"ID": "web", "Tags": ["zone=z2", "v1"], "Address": "", "Port": 80, "CreateIndex": 9,
            "Meta": {"version": "1.2", "sd-priority": "2"}, "Weights": {"Passing": 5, "Warning": 1}});
        let read = theirs(&plain).unwrap().unwrap();
        assert_eq!(read.id().as_str(), "web@n");
        assert_eq!(read.incarnation(), Incarnation::from_u64(9));
        assert_eq!(read.endpoint().to_string(), "10.1.1.1:80");
        assert_eq!((read.zone(), read.version()), (Some("z2"), Some("1.2")));
        assert_eq!((read.weight(), read.priority()), (5, 2));
        let metadata = |key: &str| read.metadata().get(key).map(String::as_str);
        assert_eq!(
            (metadata(NODE), metadata(DATACENTER)),
            (Some("n"), Some("dc1"))
        );
        assert_eq!(metadata("version"), Some("1.2"));

        let odd = json!({"ID": "web", "Tags": null, "Address": "2001:db8::7", "Port": 80, "Meta": null,
            "Weights": {"Passing": 70000, "Warning": -1}});
        let read = theirs(&odd).unwrap().unwrap();
        assert_eq!(read.endpoint().to_string(), "[2001:db8::7]:80");
        assert_eq!((read.zone(), read.weight()), (Some("z1"), u16::MAX));
    }

    #[test]
    fn what_cannot_be_dialled_is_refused_with_a_reason() {
        for (service, reason) in [
            (json!({"ID": "web", "Address": "h", "Port": 0}), "port"),
            (json!({"ID": "web", "Address": "h", "Port": 70000}), "port"),
            (json!({"ID": "web", "Address": "a b", "Port": 1}), "host"),
            (
                json!({"ID": "w\u{1b}b", "Address": "h", "Port": 1}),
                "control",
            ),
            (json!({"ID": "web", "SocketPath": "run/s"}), "absolute"),
        ] {
            let error = theirs(&service).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn only_what_is_well_is_an_instance_and_maintenance_makes_it_unready() {
        let written = definition(&instance()).unwrap();
        let strict = Codec::new(&ConsulConfig::default());
        let tolerant = Codec::new(&ConsulConfig::default().with_warnings(true));
        let ready = |codec: &Codec, checks: serde_json::Value| {
            let read = codec.decode(&service(), told(&written, &checks)).unwrap();
            read.map(|instance| instance.is_ready())
        };
        let check = |status: &str| json!([{"CheckID": "service:greeter:g-1", "Status": status}]);
        assert_eq!(ready(&strict, check("passing")), Some(true));
        assert_eq!(ready(&strict, check("warning")), None);
        assert_eq!(ready(&tolerant, check("warning")), Some(true));
        assert_eq!(ready(&tolerant, check("critical")), None);
        assert_eq!(ready(&Codec::verbatim(), check("critical")), Some(true));
        for id in ["_node_maintenance", "_service_maintenance:greeter:g-1"] {
            let maintenance = json!([{"CheckID": id, "Status": "critical"}]);
            assert_eq!(ready(&strict, maintenance), Some(false), "{id}");
        }
    }

    #[test]
    fn an_override_is_of_one_run_and_the_nodes_maintenance_wins_over_it() {
        let instance = instance();
        let written = definition(&instance).unwrap();
        let codec = Codec::new(&ConsulConfig::default());
        let run = instance.incarnation();
        let read = |notes: String, node: &str| {
            let checks = json!([
                {"CheckID": "_service_maintenance:greeter:g-1", "Status": "critical", "Notes": notes},
                {"CheckID": "_node_maintenance", "Status": node},
            ]);
            let read = codec.decode(&service(), told(&written, &checks));
            let read = read.unwrap().unwrap();
            (read.is_ready(), read.overridden())
        };
        let drained = (false, Some(Override::Draining));
        let of = |run| format!("sd: override draining {run}");
        assert_eq!(read(of(run), "passing"), drained);
        assert_eq!(read(of(run), "critical"), drained);
        let other = Incarnation::random();
        assert_eq!(read(of(other), "passing"), (true, None));
        assert_eq!(read(of(other), "critical"), (false, None));
        assert_eq!(read("disk".to_owned(), "passing"), (false, None));
    }

    #[test]
    fn what_a_record_of_ours_left_on_the_service_of_another_program_makes_that_unready() {
        let codec = Codec::new(&ConsulConfig::default());
        for reason in ["sd: not ready", "sd: override draining 000000000000002a"] {
            let entry = json!({
                "Node": {"Node": "n", "Address": "10.1.1.1"},
                "Service": {"ID": "greeter:g-1", "Service": "greeter", "Address": "h", "Port": 1, "CreateIndex": 0x2a},
                "Checks": [
                    {"CheckID": "_service_maintenance:greeter:g-1", "Status": "critical", "Notes": reason},
                    {"CheckID": "service:greeter:g-1", "Status": "passing"},
                ],
            });
            let entry = serde_json::from_value(entry).unwrap();
            let read = codec.decode(&service(), entry).unwrap().unwrap();
            assert_eq!(
                (read.is_ready(), read.overridden()),
                (false, None),
                "{reason}"
            );
        }
    }

    #[test]
    fn a_copy_of_our_metadata_under_another_id_is_not_our_record() {
        let meta = json!({"sd-incarnation": "abc"});
        let read = theirs(
            &json!({"ID": "copy", "Address": "h", "Port": 1, "Meta": meta, "CreateIndex": 4}),
        );
        let read = read.unwrap().unwrap();
        assert_eq!(read.id().as_str(), "copy@n");
        assert_eq!(read.incarnation(), Incarnation::from_u64(4));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            service in "[a:~/ \u{f6}_.]{1,6}|[^\\p{C}\\p{Zl}\\p{Zp}]{1,9}", id in "[a:~/ \u{f6}_.]{1,6}|[^\\p{C}\\p{Zl}\\p{Zp}]{1,20}", port in 1..u16::MAX, weight: u16, priority: u16, tag in "\\PC{0,9}",
            key in "\\PC{0,9}|sd-k-_?[0-9]{0,3}|sd-zone|consul-x|version", value in "\\PC{0,9}",
            zone in prop::option::of("\\PC{1,9}"), version in prop::option::of("\\PC{0,9}"),
        ) {
            prop_assume!(!matches!(&*service, "." | ".."));
            let mut instance = Instance::new(&service, format!("h:{port}")).unwrap()
                .with_id(InstanceId::new(id).unwrap())
                .with_weight(weight)
                .with_priority(priority)
                .with_tag(tag)
                .with_metadata(key, value);
            if let Some(zone) = zone {
                instance = instance.with_zone(zone);
            }
            if let Some(version) = version {
                instance = instance.with_version(version);
            }
            let written = definition(&instance).unwrap();
            prop_assert!(written.id.is_ascii() && !written.id.contains(['/', '%', '"']), "{}", written.id);
            let entry = told(&written, &json!([]));
            let read = Codec::new(&ConsulConfig::default()).decode(instance.service(), entry);
            prop_assert_eq!(read, Ok(Some(instance)));
        }

        #[test]
        fn anything_is_read_or_refused(id in "\\PC{0,20}", address in "\\PC{0,20}", port: i64, path in "\\PC{0,9}", key in "\\PC{0,9}") {
            let _ = theirs(&json!({"ID": id, "Address": address, "Port": port, "SocketPath": path, "Meta": {key: "1"}}));
        }
    }
}
