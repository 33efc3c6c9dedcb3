//! Between an [`Instance`] and what is stored in ZooKeeper: nodes and their data. Pure functions.
//!
//! A record is the node `<prefix>/<service>/<id>`, except in reception's layout. Whatever the format that is written, all are read: JSON
//! that has attributes is reception's, other JSON is Curator's, and other text is go-kit's.

pub(crate) mod curator;
pub(crate) mod fields;
#[cfg(test)]
mod golden;
pub(crate) mod names;
pub(crate) mod protected_name;
pub(crate) mod reception;

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use sd_backend::{Record, gokit};
use sd_core::{Error, Incarnation, Instance, Override, RecordId, Result, ServiceName};

use crate::codec::curator::Style;
use crate::codec::fields::Fields;
use crate::codec::names::{name_of, node_name};
use crate::codec::reception::protected_name;
use crate::config::ZkConfig;
use crate::config::format::Format;

/// The most that is written into a node, whatever others have added to a record. ZooKeeper takes 1 MiB in one request by default, and ends
/// the connection over a larger one.
const MOST_NODE_BYTES: usize = 1_000_000;

/// Where records are and how they are written.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    prefix: String,
    format: Format,
    style: Style,
}

/// Where data was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    /// The name of the node in the folder of its service.
    pub(crate) node: &'a str,
    /// The number of the change that made the node.
    pub(crate) czxid: i64,
    /// The session that the node ends with; 0 if it ends with none.
    pub(crate) session: i64,
}

impl<'a> Origin<'a> {
    /// The id that the name of the node says.
    fn id(&self) -> Cow<'a, str> {
        match protected_name(self.node) {
            Some(protected) => protected.id,
            None => name_of(self.node).unwrap_or(Cow::Borrowed(self.node)),
        }
    }

    /// The run that is meant where the data names none.
    fn run(&self) -> Incarnation {
        match protected_name(self.node) {
            Some(protected) => protected.incarnation,
            None => Incarnation::from_u64(self.czxid.cast_unsigned()),
        }
    }
}

/// How a record is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Under this path.
    Node(String),
    /// Under a path that begins so. The server appends a sequence.
    Sequential {
        /// The folder of the service.
        folder: String,
        /// How the name of the node begins.
        node_prefix: String,
    },
}

impl Layout {
    /// For a [checked](ZkConfig::checked) configuration.
    pub(crate) fn new(config: &ZkConfig) -> Self {
        Self {
            prefix: config.prefix.clone(),
            format: config.format,
            style: Style {
                payload_class: config.payload_class.clone(),
                write_enabled: config.write_enabled,
            },
        }
    }

    /// The node that has all services as its children.
    pub(crate) fn root(&self) -> &str {
        &self.prefix
    }

    /// The node that has all records of a service as its children.
    pub(crate) fn folder(&self, service: &ServiceName) -> String {
        format!("{}/{}", self.prefix, node_name(service.as_str()))
    }

    /// The service whose folder has this name.
    pub(crate) fn service_of(node: &str) -> Option<ServiceName> {
        ServiceName::new(name_of(node)?).ok()
    }

    /// Where a record is.
    pub(crate) fn place(&self, record: &RecordId) -> Place {
        let folder = self.folder(&record.service);
        match self.format {
            Format::Reception => Place::Sequential {
                folder,
                node_prefix: reception::node_prefix(record),
            },
            Format::Curator | Format::GoKit => {
                Place::Node(format!("{folder}/{}", node_name(record.id.as_str())))
            }
        }
    }

    /// Whether readers learn from a record that it was withdrawn on purpose.
    pub(crate) fn tells_withdrawals(&self) -> bool {
        self.format == Format::Curator
    }

    /// Whether the data of a record says of which run it is.
    pub(crate) fn says_run(&self) -> bool {
        self.format == Format::Curator
    }

    /// The data of a new record.
    ///
    /// # Errors
    /// `InvalidInput` says why there is none.
    pub(crate) fn encode(&self, op: &'static str, instance: &Instance) -> Result<Vec<u8>> {
        let data = match self.format {
            Format::Curator => curator::encode(instance, &self.style, now_ms()),
            Format::Reception => reception::encode(instance),
            Format::GoKit => Ok(gokit::encode(instance).into_bytes()),
        };
        data.map_err(|reason| Error::invalid_input(op, reason))
    }

    /// The data of a record that was found, with what the instance says now, and with what others have added if there is room for it.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub(crate) fn update(
        &self,
        op: &'static str,
        found: &[u8],
        instance: &Instance,
    ) -> Result<Vec<u8>> {
        if self.format == Format::Curator
            && let Ok(updated) = curator::update(found, instance)
            && is_writable(&updated)
        {
            return Ok(updated);
        }
        self.encode(op, instance)
    }
}

/// The record in a node. An error says why it cannot be understood.
pub(crate) fn decode(
    service: &ServiceName,
    origin: &Origin<'_>,
    data: &[u8],
) -> Result<Record, String> {
    if !is_json(data) {
        let instance = gokit::decode(service, &origin.id(), data, origin.run())?;
        return Ok(Record::Live(instance));
    }
    let fields = Fields::read(data)?;
    if reception::is_reception(&fields) {
        let instance = reception::decode(service, &origin.id(), &fields, origin.run())?;
        return Ok(Record::Live(instance));
    }
    curator::decode(service, origin, &fields)
}

/// The data, marked as withdrawn on purpose. `None` if it has no room for that.
pub(crate) fn mark_withdrawn(data: &[u8]) -> Option<Vec<u8>> {
    curator::mark_withdrawn(data).filter(|marked| is_writable(marked))
}

/// The data with what an operator says. `None` if it has no room for that.
pub(crate) fn set_override(data: &[u8], said: Option<Override>) -> Option<Vec<u8>> {
    curator::set_override(data, said).ok()
}

/// Whether a server takes so much.
pub(crate) fn is_writable(data: &[u8]) -> bool {
    data.len() <= MOST_NODE_BYTES
}

fn is_json(data: &[u8]) -> bool {
    data.trim_ascii_start().first() == Some(&b'{')
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
