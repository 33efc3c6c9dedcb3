//! The JSON of Curator's service discovery, as its `JsonInstanceSerializer` writes it.
//!
//! What Curator has no field for is in the payload, an object: incarnation, readiness, version, zone, weight, priority, tags and metadata.
//! A record without an incarnation there is another program's. Its payload is read as metadata, as far as it is text.

use std::collections::{BTreeMap, BTreeSet};

use sd_backend::Record;
use sd_core::{Address, Endpoint, Incarnation, Instance, InstanceId, Override, ServiceName};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::codec::Origin;
use crate::codec::fields::Fields;

/// The metadata key of a payload that is no object.
pub const PAYLOAD: &str = "payload";

/// The names of Curator's fields, and of ours in the payload.
mod field {
    pub(super) const NAME: &str = "name";
    pub(super) const ID: &str = "id";
    pub(super) const ADDRESS: &str = "address";
    pub(super) const PORT: &str = "port";
    pub(super) const SSL_PORT: &str = "sslPort";
    pub(super) const PAYLOAD: &str = "payload";
    pub(super) const REGISTRATION_TIME: &str = "registrationTimeUTC";
    pub(super) const SERVICE_TYPE: &str = "serviceType";
    pub(super) const URI_SPEC: &str = "uriSpec";
    pub(super) const ENABLED: &str = "enabled";

    pub(super) const CLASS: &str = "@class";
    pub(super) const INCARNATION: &str = "incarnation";
    pub(super) const READY: &str = "ready";
    pub(super) const VERSION: &str = "version";
    pub(super) const ZONE: &str = "zone";
    pub(super) const WEIGHT: &str = "weight";
    pub(super) const PRIORITY: &str = "priority";
    pub(super) const TAGS: &str = "tags";
    pub(super) const METADATA: &str = "metadata";
    pub(super) const OVERRIDE: &str = "override";
    pub(super) const WITHDRAWN: &str = "withdrawn";
}

const SERVICE_TYPES: [&str; 4] = ["DYNAMIC", "STATIC", "PERMANENT", "DYNAMIC_SEQUENTIAL"];

/// How Curator's readers are to take what we write.
#[derive(Clone, Debug, Default)]
pub(crate) struct Style {
    /// The Java class of the payload.
    pub(crate) payload_class: Option<String>,
    /// Whether the field `enabled` is written.
    pub(crate) write_enabled: bool,
}

/// A new record, registered at this time in milliseconds since 1970.
pub(crate) fn encode(instance: &Instance, style: &Style, now_ms: i64) -> Result<Vec<u8>, String> {
    let mut fields = Fields::default();
    set_identity(&mut fields, instance)?;
    fields.set(field::SSL_PORT, &())?;
    let mut payload = Fields::default();
    if let Some(class) = &style.payload_class {
        payload.set(field::CLASS, class)?;
    }
    set_payload(&mut payload, instance)?;
    fields.set(field::PAYLOAD, &payload)?;
    fields.set(field::REGISTRATION_TIME, &now_ms)?;
    fields.set(field::SERVICE_TYPE, &SERVICE_TYPES[0])?;
    fields.set(field::URI_SPEC, &())?;
    if style.write_enabled {
        fields.set(field::ENABLED, &instance.is_ready())?;
    }
    fields.write()
}

/// The record with what the instance says now, and not as withdrawn. All that is not ours to say stays: other fields, the time of
/// registration, an override.
pub(crate) fn update(data: &[u8], instance: &Instance) -> Result<Vec<u8>, String> {
    edit(data, |fields, payload| {
        set_identity(fields, instance)?;
        payload.remove(field::WITHDRAWN);
        set_payload(payload, instance)
    })
}

/// The record with what an operator says of it.
pub(crate) fn set_override(data: &[u8], said: Option<Override>) -> Result<Vec<u8>, String> {
    edit(data, |_, payload| {
        if let Some(said) = said {
            return payload.set(field::OVERRIDE, &said.as_str());
        }
        payload.remove(field::OVERRIDE);
        Ok(())
    })
}

/// The record, marked as withdrawn on purpose. `None` if it is another program's, whose payload is not ours to change.
pub(crate) fn mark_withdrawn(data: &[u8]) -> Option<Vec<u8>> {
    edit(data, |_, payload| payload.set(field::WITHDRAWN, &true)).ok()
}

/// Changes a record of ours, and keeps `enabled` true to it.
fn edit(
    data: &[u8],
    change: impl FnOnce(&mut Fields, &mut Fields) -> Result<(), String>,
) -> Result<Vec<u8>, String> {
    let mut fields = Fields::read(data)?;
    let mut payload = own_payload(&fields)?;
    change(&mut fields, &mut payload)?;
    if fields.raw(field::ENABLED).is_some() {
        let is_withdrawn: bool = payload.get(field::WITHDRAWN)?;
        let is_ready = match said(&payload) {
            Some(said) => said.is_ready(),
            None => payload.get::<Option<bool>>(field::READY)?.unwrap_or(true),
        };
        fields.set(field::ENABLED, &(is_ready && !is_withdrawn))?;
    }
    fields.set(field::PAYLOAD, &payload)?;
    fields.write()
}

/// The payload of a record of ours.
fn own_payload(fields: &Fields) -> Result<Fields, String> {
    let payload = fields.raw(field::PAYLOAD).ok_or("it has no payload")?;
    let payload = Fields::read(payload.get().as_bytes())?;
    match payload.get::<Option<Incarnation>>(field::INCARNATION)? {
        Some(_) => Ok(payload),
        None => Err("its payload has no incarnation".to_owned()),
    }
}

fn set_identity(fields: &mut Fields, instance: &Instance) -> Result<(), String> {
    fields.set(field::NAME, &instance.service().as_str())?;
    fields.set(field::ID, &instance.id().as_str())?;
    let endpoint = instance.endpoint();
    if let Address::Tcp { host, port } = endpoint.address() {
        fields.set(field::ADDRESS, &host)?;
        return fields.set(field::PORT, &port);
    }
    // Curator has no such address, so its readers see one that they cannot dial.
    fields.set(field::ADDRESS, &endpoint.to_string())?;
    fields.set(field::PORT, &())
}

fn set_payload(payload: &mut Fields, instance: &Instance) -> Result<(), String> {
    payload.set(field::INCARNATION, &instance.incarnation())?;
    payload.set(field::READY, &instance.is_ready())?;
    payload.set(field::VERSION, &instance.version())?;
    payload.set(field::ZONE, &instance.zone())?;
    payload.set(field::WEIGHT, &instance.weight())?;
    payload.set(field::PRIORITY, &instance.priority())?;
    payload.set(field::TAGS, instance.tags())?;
    payload.set(field::METADATA, instance.metadata())
}

/// What an operator says. `None` for an override of a later version, too.
fn said(payload: &Fields) -> Option<Override> {
    let name = payload
        .get::<Option<String>>(field::OVERRIDE)
        .ok()
        .flatten();
    name.and_then(|name| Override::from_name(&name))
}

/// The run that a record without our incarnation is of: its session. A process of Curator's makes its nodes again whenever it reconnects,
/// and may write another time of registration with each update, but both in the same session.
fn foreign_run(origin: &Origin<'_>, registered: i64) -> Incarnation {
    // Containers and nodes with a time-to-live say that in place of a session.
    let has_session = !matches!(origin.session, 0 | i64::MIN) && origin.session >> 56 != -1;
    let run = if has_session {
        origin.session
    } else if registered > 0 {
        registered
    } else {
        origin.czxid
    };
    Incarnation::from_u64(run.cast_unsigned())
}

/// A number, or text that is one: Curator reads both.
#[derive(Deserialize)]
#[serde(untagged)]
enum Port {
    Number(u16),
    Text(String),
}

fn port(fields: &Fields, name: &str) -> Result<Option<u16>, String> {
    match fields
        .get::<Option<Port>>(name)
        .map_err(|_| format!("{name}: is no port"))?
    {
        None => Ok(None),
        Some(Port::Number(port)) => Ok(Some(port)),
        Some(Port::Text(text)) => {
            let port = text
                .trim()
                .parse()
                .map_err(|_| format!("{name}: is no port"))?;
            Ok(Some(port))
        }
    }
}

/// The record in these fields. An error says why it cannot be understood.
pub(crate) fn decode(
    service: &ServiceName,
    origin: &Origin<'_>,
    fields: &Fields,
) -> Result<Record, String> {
    let name: String = fields.get(field::NAME)?;
    if !name.is_empty() && name != service.as_str() {
        return Err(format!("it is a record of the service {name:?}"));
    }
    let service_type: Option<String> = fields.get(field::SERVICE_TYPE)?;
    if service_type.is_some_and(|kind| !SERVICE_TYPES.contains(&kind.as_str())) {
        return Err(format!(
            "serviceType: must be one of {}",
            SERVICE_TYPES.join(", ")
        ));
    }
    let id: String = fields.get(field::ID)?;
    let id = if id.is_empty() {
        origin.id().into_owned()
    } else {
        id
    };
    let id = InstanceId::new(id).map_err(|error| error.report().to_string())?;
    let address: String = fields.get(field::ADDRESS)?;
    let ports = (port(fields, field::PORT)?, port(fields, field::SSL_PORT)?);
    let endpoint = match ports.0.or(ports.1) {
        Some(port) => Endpoint::tcp(&address, port),
        None if address.starts_with("unix:") => address.parse(),
        None => return Err("it has neither a port nor an sslPort".to_owned()),
    };
    let endpoint = endpoint.map_err(|error| error.report().to_string())?;
    let run = foreign_run(origin, fields.get(field::REGISTRATION_TIME)?);
    let instance = Instance::of_run(service.clone(), id, run, endpoint);
    let is_enabled = fields.get::<Option<bool>>(field::ENABLED)?.unwrap_or(true);
    if let Ok(payload) = own_payload(fields) {
        return of_payload(instance, &payload, is_enabled);
    }
    let instance = instance.with_ready(is_enabled);
    let payload = fields.raw(field::PAYLOAD);
    Ok(Record::Live(with_foreign(instance, payload)))
}

/// The instance with what our own payload says.
fn of_payload(
    mut instance: Instance,
    payload: &Fields,
    is_enabled: bool,
) -> Result<Record, String> {
    let run: Option<Incarnation> = payload.get(field::INCARNATION)?;
    if let Some(run) = run {
        instance = instance.with_incarnation(run);
    }
    let is_ready = payload.get::<Option<bool>>(field::READY)?.unwrap_or(true);
    let weight = payload.get::<Option<u16>>(field::WEIGHT)?;
    // Tools of Curator may have changed `enabled` alone. Under an override it says what the operator says.
    let overridden = said(payload);
    instance = instance
        .with_ready(is_ready && (is_enabled || overridden.is_some()))
        .with_weight(weight.unwrap_or(Instance::DEFAULT_WEIGHT))
        .with_priority(payload.get(field::PRIORITY)?)
        .with_override(overridden);
    if let Some(version) = payload.get::<Option<String>>(field::VERSION)? {
        instance = instance.with_version(version);
    }
    if let Some(zone) = payload.get::<Option<String>>(field::ZONE)? {
        instance = instance.with_zone(zone);
    }
    for tag in payload.get::<BTreeSet<String>>(field::TAGS)? {
        instance = instance.with_tag(tag);
    }
    for (key, value) in payload.get::<BTreeMap<String, String>>(field::METADATA)? {
        instance = instance.with_metadata(key, value);
    }
    let is_withdrawn: bool = payload.get(field::WITHDRAWN)?;
    Ok(Record::new(instance, is_withdrawn))
}

/// The instance with what the payload of another program says, as far as there is a place for it.
fn with_foreign(mut instance: Instance, payload: Option<&RawValue>) -> Instance {
    let Some(raw) = payload else {
        return instance;
    };
    let mut json = raw.get();
    // What Jackson cannot write without its class is a pair of both.
    let pair = serde_json::from_str::<(String, &RawValue)>(json);
    if let Ok((_, value)) = &pair {
        json = value.get();
    }
    let Ok(fields) = Fields::read(json.as_bytes()) else {
        return match scalar(json) {
            Some(text) => instance.with_metadata(PAYLOAD, text),
            None => instance,
        };
    };
    for (name, value) in fields.iter().filter(|(name, _)| *name != field::CLASS) {
        if let Some(text) = scalar(value.get()) {
            instance = instance.with_metadata(name, text);
        } else if name == field::METADATA
            && let Ok(metadata) = Fields::read(value.get().as_bytes())
        {
            for (key, value) in metadata.iter() {
                if let Some(text) = scalar(value.get()) {
                    instance = instance.with_metadata(key, text);
                }
            }
        }
    }
    instance
}

/// Text, a number or a truth value as text.
fn scalar(json: &str) -> Option<String> {
    match serde_json::from_str(json).ok()? {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Number(_) | serde_json::Value::Bool(_) => Some(json.to_owned()),
        _ => None,
    }
}
