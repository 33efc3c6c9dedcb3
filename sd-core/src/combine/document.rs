//! The format of the file source: `{"services": {NAME: [RECORD, ...]}}`, where a record has the keys of an instance.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::brief::brief;
use crate::error::{Error, Result};
use crate::model::endpoint::Endpoint;
use crate::model::instance::{Incarnation, Instance};
use crate::model::name::{InstanceId, ServiceName};
use crate::model::snapshot::{Skipped, Snapshot};

/// Everything that a file says.
#[derive(Debug, Default)]
pub(crate) struct Document {
    services: BTreeMap<ServiceName, Entries>,
}

/// The records of one service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entries {
    pub(crate) instances: Vec<Arc<Instance>>,
    /// Of those that cannot be read, the first ones.
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) skipped_count: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    services: BTreeMap<String, Vec<Value>>,
}

impl Document {
    /// Reads a file's content. Unreadable records are skipped and named. The error says what makes the whole file unreadable,
    /// with line and column.
    pub(crate) fn parse(content: &[u8]) -> Result<Self, String> {
        let form: Form = serde_json::from_slice(content).map_err(brief)?;
        let mut document = Self::default();
        for (name, records) in form.services {
            let service =
                ServiceName::new(&name).map_err(|error| format!("services: {}", reason(&error)))?;
            let entries = Entries::read(&service, records);
            document.services.insert(service, entries);
        }
        Ok(document)
    }

    pub(crate) fn entries(&self, service: &ServiceName) -> Entries {
        self.services.get(service).cloned().unwrap_or_default()
    }

    /// The services that have an instance.
    pub(crate) fn services(&self) -> Vec<ServiceName> {
        self.services
            .iter()
            .filter(|(_, entries)| !entries.instances.is_empty())
            .map(|(service, _)| service.clone())
            .collect()
    }
}

impl Entries {
    fn skip(&mut self, entry: Skipped) {
        if self.skipped.len() < Snapshot::MOST_SKIPPED {
            self.skipped.push(entry);
        }
        self.skipped_count += 1;
    }

    fn read(service: &ServiceName, records: Vec<Value>) -> Self {
        let mut entries = Self::default();
        let mut taken = BTreeMap::new();
        for (index, record) in records.into_iter().enumerate() {
            let key = format!("services.{service}[{index}]");
            let read =
                read_record(service, record).and_then(|instance| match taken.get(instance.id()) {
                    Some(other) => Err(format!(
                        "the id {} is already taken by {other}",
                        instance.id()
                    )),
                    None => Ok(instance),
                });
            match read {
                Ok(instance) => {
                    taken.insert(instance.id().clone(), key);
                    entries.instances.push(Arc::new(instance));
                }
                Err(reason) => entries.skip(Skipped::new(key, reason)),
            }
        }
        entries
    }
}

/// The id is the address unless the record states one. A file's records have no runs: the incarnation is 0 unless stated.
fn read_record(service: &ServiceName, record: Value) -> Result<Instance, String> {
    let Value::Object(mut fields) = record else {
        return Err("must be an object with an \"address\"".to_owned());
    };
    let endpoint: Endpoint = field(&fields, "address")?.ok_or("has no \"address\"")?;
    let id = match field(&fields, "id")? {
        Some(id) => id,
        None => InstanceId::new(endpoint.to_string()).map_err(|error| reason(&error))?,
    };
    let incarnation = field(&fields, "incarnation")?.unwrap_or(Incarnation::from_u64(0));
    let stated: Option<ServiceName> = field(&fields, "service")?;
    if let Some(other) = stated.filter(|stated| stated != service) {
        return Err(format!(
            "is listed under {service} but says service {other}"
        ));
    }
    for (key, text) in [
        ("service", service.to_string()),
        ("id", id.to_string()),
        ("incarnation", incarnation.to_string()),
    ] {
        fields.insert(key.to_owned(), Value::String(text));
    }
    serde_json::from_value(Value::Object(fields)).map_err(brief)
}

/// A field that is parsed from text. The error names the rule that the text breaks.
fn field<T: FromStr<Err = Error>>(
    fields: &Map<String, Value>,
    key: &str,
) -> Result<Option<T>, String> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => text.parse().map(Some).map_err(|error| reason(&error)),
        Some(other) => Err(format!("\"{key}\" must be text, not {}", brief(other))),
    }
}

fn reason(error: &Error) -> String {
    error.report().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn greeters(records: &str) -> Entries {
        let content = format!(r#"{{"services": {{"greeter": [{records}]}}}}"#);
        let document = Document::parse(content.as_bytes()).unwrap();
        document.entries(&ServiceName::new("greeter").unwrap())
    }

    #[test]
    fn a_record_needs_an_address_only_and_may_have_every_key_of_an_instance() {
        let entries = greeters(
            r#"{"address": "10.0.0.7:50051"},
               {"address": "h:1", "id": "i", "zone": "a", "weight": 5, "tags": ["blue"], "metadata": {"k": "v"}}"#,
        );
        assert!(entries.skipped.is_empty(), "{:?}", entries.skipped);
        let [first, second] = &entries.instances[..] else {
            panic!("{entries:?}");
        };
        assert_eq!(first.id().as_str(), "10.0.0.7:50051");
        assert_eq!(first.incarnation(), Incarnation::from_u64(0));
        assert_eq!((second.id().as_str(), second.weight()), ("i", 5));
        assert_eq!(second.zone(), Some("a"));
    }

    #[test]
    fn an_unreadable_record_is_skipped_and_named_with_its_reason() {
        for (record, reason) in [
            ("7", "must be an object"),
            ("{}", "no \"address\""),
            (r#"{"address": "h:0"}"#, "cannot be dialled"),
            (r#"{"address": 7}"#, "must be text"),
            (r#"{"address": "h:1", "id": "a\nb"}"#, "control"),
            (r#"{"address": "h:1", "weight": -1}"#, "-1"),
            (
                r#"{"address": "h:1", "service": "other"}"#,
                "says service other",
            ),
            (r#"{"address": "good:1"}"#, "taken by services.greeter[0]"),
        ] {
            let entries = greeters(&format!(r#"{{"address": "good:1"}}, {record}"#));
            assert_eq!(entries.instances.len(), 1);
            let [skipped] = &entries.skipped[..] else {
                panic!("{record}: {entries:?}");
            };
            assert_eq!(skipped.key, "services.greeter[1]");
            assert!(skipped.reason.contains(reason), "{record}: {skipped:?}");
        }
    }

    #[test]
    fn a_file_that_is_something_else_is_refused_with_line_and_column() {
        for (content, reason) in [
            ("", "line 1 column 0"),
            ("{\"services\": {\n \"s\": [,]}}", "line 2 column"),
            ("{}", "missing field `services`"),
            (
                r#"{"services": {}, "version": 2}"#,
                "unknown field `version`",
            ),
            (r#"{"services": {"a\nb": []}}"#, r"a\nb"),
        ] {
            let error = Document::parse(content.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{content}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_record_is_read_or_skipped(record in "[\\[\\]{}\":,a-z0-9 ]{0,40}") {
            let content = format!(r#"{{"services": {{"s": [{record}]}}}}"#);
            let _ = Document::parse(content.as_bytes());
        }
    }
}
