//! One running copy of a service, as the registry knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::brief::quoted;
use crate::error::{Error, Result};
use crate::model::checked::read_checked;
use crate::model::endpoint::Endpoint;
use crate::model::name::{InstanceId, ServiceName};
use crate::model::overriding::Override;

/// Tells two runs of one instance apart. Random, new for each [`Instance::new`]: a restarted process is a new incarnation even
/// if id and address are the same. Written as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct Incarnation(u64);

read_checked!(Incarnation);

impl Incarnation {
    /// A new random incarnation.
    pub fn random() -> Self {
        Self(fastrand::u64(..))
    }

    /// An incarnation with this value, for backends that derive it for records that carry none.
    pub const fn from_u64(value: u64) -> Self {
        Self(value)
    }

    /// The value.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Incarnation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(value) if digits => Ok(Self(value)),
            _ => Err(Error::invalid_input(
                "incarnation",
                format!(
                    "{} is no incarnation: write 1 to 16 hexadecimal digits",
                    quoted(text)
                ),
            )),
        }
    }
}

impl TryFrom<String> for Incarnation {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Incarnation> for String {
    fn from(incarnation: Incarnation) -> Self {
        incarnation.to_string()
    }
}

/// The identity of one record at the server: service, id and incarnation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordId {
    /// The service.
    pub service: ServiceName,
    /// The instance's id within the service.
    pub id: InstanceId,
    /// The run of that instance.
    pub incarnation: Incarnation,
}

/// One running copy of a service.
///
/// Two instances are equal if all fields are. The JSON form is what our backends store, what files hold, and what `sdctl`
/// prints. Unknown fields are ignored, so that newer writers do not break older readers. An override is printed, and never read
/// from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    service: ServiceName,
    id: InstanceId,
    incarnation: Incarnation,
    #[serde(rename = "address")]
    endpoint: Endpoint,
    #[serde(default = "ready_by_default")]
    ready: bool,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default = "default_weight")]
    weight: u16,
    #[serde(default)]
    priority: u16,
    #[serde(default)]
    tags: BTreeSet<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    /// No part of what is stored: a backend that reads the record adds it.
    #[serde(
        rename = "override",
        skip_deserializing,
        skip_serializing_if = "Option::is_none"
    )]
    overridden: Option<Override>,
}

/// The id of a run whose owner chose none.
fn id_of_run(endpoint: &Endpoint, incarnation: Incarnation) -> String {
    let address = endpoint.to_string();
    let address = address.trim_start_matches("unix:/");
    format!("{address}-{:08x}", incarnation.0 >> 32)
}

fn ready_by_default() -> bool {
    true
}

fn default_weight() -> u16 {
    Instance::DEFAULT_WEIGHT
}

impl Instance {
    /// How many characters at the end of an id that is made of an address tell the runs there apart.
    pub(crate) const RUN_DIGITS: usize = 8;

    /// The weight of an instance that sets none.
    pub const DEFAULT_WEIGHT: u16 = 1;

    /// An instance of `service` that clients dial at `endpoint` (`host:port`, `[ipv6]:port` or `unix:/path`). It is ready, has
    /// weight 1 and priority 0, a random incarnation, and an id made of address and incarnation. Both arguments may be text, or
    /// what was checked before: a [`ServiceName`], an [`Endpoint`], a `SocketAddr`.
    ///
    /// # Errors
    /// `InvalidInput` says which of the two is wrong and what to write.
    pub fn new(
        service: impl TryInto<ServiceName, Error: Into<Error>>,
        endpoint: impl TryInto<Endpoint, Error: Into<Error>>,
    ) -> Result<Self> {
        let service = service.try_into().map_err(Into::into)?;
        let endpoint = endpoint.try_into().map_err(Into::into)?;
        let incarnation = Incarnation::random();
        let id = InstanceId::new(id_of_run(&endpoint, incarnation))?;
        Ok(Self::of_run(service, id, incarnation, endpoint))
    }

    /// One known run of an instance, for backends that read it from the server. Everything else is as in [`new`](Self::new).
    pub fn of_run(
        service: ServiceName,
        id: InstanceId,
        incarnation: Incarnation,
        endpoint: Endpoint,
    ) -> Self {
        Self {
            service,
            id,
            incarnation,
            endpoint,
            ready: true,
            version: None,
            zone: None,
            weight: Instance::DEFAULT_WEIGHT,
            priority: 0,
            tags: BTreeSet::new(),
            metadata: BTreeMap::new(),
            overridden: None,
        }
    }

    /// Sets an id that stays the same across restarts. The registry refuses a second live instance with this id.
    #[must_use]
    pub fn with_id(mut self, id: InstanceId) -> Self {
        self.id = id;
        self
    }

    /// Sets an incarnation that is known from elsewhere.
    #[must_use]
    pub fn with_incarnation(mut self, incarnation: Incarnation) -> Self {
        self.incarnation = incarnation;
        self
    }

    /// Sets another address. The incarnation stays the same.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = endpoint;
        self
    }

    /// Sets whether the instance wants calls. Balancers send none to an instance that is not ready. Default true.
    #[must_use]
    pub fn with_ready(mut self, ready: bool) -> Self {
        self.ready = ready;
        self
    }

    /// Sets what an operator says of the record, for backends that read it: the instance is then as ready as that says. `None` takes
    /// it back and leaves the readiness as it is. Registrations store no override.
    #[must_use]
    pub fn with_override(mut self, said: impl Into<Option<Override>>) -> Self {
        self.overridden = said.into();
        if let Some(said) = self.overridden {
            self.ready = said.is_ready();
        }
        self
    }

    /// Sets the version of the software it runs.
    #[must_use]
    pub fn with_version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Sets the zone it runs in.
    #[must_use]
    pub fn with_zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Sets the instance's share of the calls, relative to the others. Default 1. An instance of weight 0 gets no calls, unless
    /// all have weight 0.
    #[must_use]
    pub fn with_weight(mut self, weight: u16) -> Self {
        self.weight = weight;
        self
    }

    /// Sets the instance's tier: lower tiers are used first. Default 0.
    #[must_use]
    pub fn with_priority(mut self, priority: u16) -> Self {
        self.priority = priority;
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn with_tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.insert(tag.into());
        self
    }

    /// Adds a metadata entry, or replaces the entry with this key.
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// The service it is a copy of.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Its id within the service.
    pub fn id(&self) -> &InstanceId {
        &self.id
    }

    /// The run of the instance.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Whether the id was [made](Self::new) of the address and the random incarnation, so that no other run has it.
    pub fn id_holds_incarnation(&self) -> bool {
        // The id holds only the high half. Derived numbers that count up leave that half unchanged.
        let run = self.incarnation.0 >> 32;
        let id = self.id.as_str();
        // Compared first, since this is asked of each record of a set, and costs nothing.
        let digits = id.len().checked_sub(Self::RUN_DIGITS);
        let digits = digits.and_then(|at| u64::from_str_radix(id.get(at..)?, 16).ok());
        run != 0 && digits == Some(run) && id == id_of_run(&self.endpoint, self.incarnation)
    }

    /// The identity of the instance's record at the server.
    pub fn record_id(&self) -> RecordId {
        RecordId {
            service: self.service.clone(),
            id: self.id.clone(),
            incarnation: self.incarnation,
        }
    }

    /// Where clients dial it.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether it wants calls. An [override](Self::overridden) decides, if there is one.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// What an operator says of the record in place of its owner.
    pub fn overridden(&self) -> Option<Override> {
        self.overridden
    }

    /// The version of the software it runs.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The zone it runs in.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Its share of the calls, relative to the others.
    pub fn weight(&self) -> u16 {
        self.weight
    }

    /// Its tier: lower tiers are used first.
    pub fn priority(&self) -> u16 {
        self.priority
    }

    /// Its tags, sorted.
    pub fn tags(&self) -> &BTreeSet<String> {
        &self.tags
    }

    /// Its metadata, sorted by key.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Whether both are the same run of the same instance. Other fields may differ.
    pub fn is_same_run(&self, other: &Self) -> bool {
        self.id == other.id && self.incarnation == other.incarnation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_record_reads_with_defaults_and_unknown_fields_are_ignored() {
        let json =
            r#"{"service":"s","id":"i","incarnation":"2a","address":"h:1","from_the_future":[1]}"#;
        let instance: Instance = serde_json::from_str(json).unwrap();
        assert!(instance.is_ready());
        assert_eq!(instance.weight(), Instance::DEFAULT_WEIGHT);
        assert_eq!(instance.incarnation(), Incarnation::from_u64(42));
    }

    #[test]
    fn the_json_form_is_stable() {
        let instance = Instance::new("greeter", "10.0.0.7:50051")
            .unwrap()
            .with_id(InstanceId::new("g-1").unwrap())
            .with_incarnation(Incarnation::from_u64(0xabc))
            .with_zone("a")
            .with_tag("blue")
            .with_metadata("k", "v");
        let json = serde_json::to_string(&instance).unwrap();
        assert_eq!(
            json,
            r#"{"service":"greeter","id":"g-1","incarnation":"0000000000000abc","address":"10.0.0.7:50051","ready":true,"version":null,"zone":"a","weight":1,"priority":0,"tags":["blue"],"metadata":{"k":"v"}}"#
        );
        assert_eq!(serde_json::from_str::<Instance>(&json).unwrap(), instance);
    }

    #[test]
    fn an_override_decides_on_readiness_and_is_printed_but_not_read() {
        let ready = Instance::new("s", "h:1").unwrap();
        let drained = ready.clone().with_override(Override::Draining);
        assert!(!drained.is_ready());
        let json = serde_json::to_value(&drained).unwrap();
        assert_eq!(json["override"], "draining");
        let read: Instance = serde_json::from_value(json).unwrap();
        assert_eq!(read, ready.clone().with_ready(false));
        let unready = ready.clone().with_ready(false);
        let wanted = unready.with_override(Override::Ready);
        assert!(wanted.is_ready());
        assert_eq!(wanted.with_override(None), ready);
    }

    #[test]
    fn two_runs_at_one_address_are_told_apart() {
        let first = Instance::new("s", "h:1").unwrap();
        let second = Instance::new("s", "h:1").unwrap();
        assert!(!first.is_same_run(&second));
        assert_ne!(first.id(), second.id());
    }
}
