//! The JSON of reception, in a protected sequential node: `_c_<32 hexadecimal digits>-<id>-<sequence>`.
//!
//! The last 16 digits are the incarnation, so that a run finds its own node.

use std::borrow::Cow;
use std::collections::BTreeMap;

use sd_core::{Address, Endpoint, Incarnation, Instance, InstanceId, RecordId, ServiceName};
use serde::Serialize;

use crate::codec::fields::Fields;
use crate::codec::names::{name_of, node_name};
use crate::codec::protected_name::{GUID_DIGITS, PREFIX, ProtectedName};

const ADDRESS: &str = "address";
const PORT: &str = "port";
const ATTRIBUTES: &str = "attributes";

/// What the name of a record's node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Protected<'a> {
    pub(crate) id: Cow<'a, str>,
    pub(crate) incarnation: Incarnation,
}

/// How the name of the node of this run begins; the sequence follows.
pub(crate) fn node_prefix(record: &RecordId) -> String {
    let run = record.incarnation.as_u64();
    // The first half only has to differ from run to run, as the second does.
    let first = run.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    format!(
        "{PREFIX}{first:016x}{run:016x}-{}-",
        node_name(record.id.as_str())
    )
}

/// What the name of a node says, if it is that of a protected sequential node with an id.
pub(crate) fn protected_name(node: &str) -> Option<Protected<'_>> {
    let ProtectedName { guid, id, .. } = ProtectedName::read(node)?;
    let is_hex = guid.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex || id.is_empty() {
        return None;
    }
    let (_, last) = guid.split_at_checked(GUID_DIGITS / 2)?;
    Some(Protected {
        id: name_of(id).unwrap_or(Cow::Borrowed(id)),
        incarnation: last.parse().ok()?,
    })
}

#[derive(Serialize)]
struct Json<'a> {
    address: &'a str,
    port: u16,
    attributes: &'a BTreeMap<String, String>,
}

/// The data for an instance. An error says why there is none.
pub(crate) fn encode(instance: &Instance) -> Result<Vec<u8>, String> {
    let Address::Tcp { host, port } = instance.endpoint().address() else {
        return Err("reception's layout has no Unix sockets: write another format".to_owned());
    };
    let json = Json {
        address: host,
        port,
        attributes: instance.metadata(),
    };
    serde_json::to_vec(&json).map_err(|error| error.to_string())
}

/// Whether these fields are of reception's layout.
pub(crate) fn is_reception(fields: &Fields) -> bool {
    fields.raw(ATTRIBUTES).is_some() && fields.raw("serviceType").is_none()
}

/// The instance in these fields, as the run `run`. An error says why it cannot be understood.
pub(crate) fn decode(
    service: &ServiceName,
    id: &str,
    fields: &Fields,
    run: Incarnation,
) -> Result<Instance, String> {
    let address: String = fields.get(ADDRESS)?;
    let port: u16 = fields.get(PORT)?;
    let endpoint = Endpoint::tcp(&address, port).map_err(|error| error.report().to_string())?;
    let id = InstanceId::new(id).map_err(|error| error.report().to_string())?;
    let mut instance = Instance::of_run(service.clone(), id, run, endpoint);
    for (key, value) in fields.get::<BTreeMap<String, String>>(ATTRIBUTES)? {
        instance = instance.with_metadata(key, value);
    }
    Ok(instance)
}
