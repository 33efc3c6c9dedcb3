//! A record as it is stored: a line of what scripts compare, before the JSON of the instance. Pure functions.
//!
//! ```text
//! live 00f1e2d3c4b5a697 1700000000000000 - {"service":"s", …}
//! ```
//!
//! They are: whether it is in service or withdrawn, its run, when it was made, and what an operator says of it, or a dash.

use sd_backend::{Record, read_json};
use sd_core::{Error, ErrorKind, Instance, InstanceId, Override, ServiceName};

const LIVE: &str = "live";
const GONE: &str = "gone";
/// An operator says nothing.
const NOTHING: &str = "-";

/// What a stored value says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// With what an operator says of it.
    pub(crate) record: Record,
    /// Its place in the order in which records were made.
    pub(crate) made: u64,
}

/// The JSON of a record, which scripts put behind the line.
///
/// # Errors
/// `InvalidInput` if the instance cannot be written.
pub(crate) fn encode(op: &'static str, instance: &Instance) -> sd_core::Result<Vec<u8>> {
    serde_json::to_vec(instance)
        .map_err(|error| Error::new(ErrorKind::InvalidInput, op).with_source(error))
}

/// What stands for what an operator says.
pub(crate) fn said(wanted: Option<Override>) -> &'static str {
    wanted.map_or(NOTHING, Override::as_str)
}

/// What an operator says, if it is known here.
pub(crate) fn override_of(said: &[u8]) -> Option<Override> {
    std::str::from_utf8(said).ok().and_then(Override::from_name)
}

/// What is stored for `service` under `id`. An error says why it cannot be understood.
pub(crate) fn decode(service: &ServiceName, id: &[u8], value: &[u8]) -> Result<Stored, String> {
    let mut parts = value.splitn(5, |byte| *byte == b' ');
    let mut part = || parts.next().unwrap_or_default();
    let is_withdrawn = match part() {
        kind if kind == LIVE.as_bytes() => false,
        kind if kind == GONE.as_bytes() => true,
        _ => return Err(format!("it does not begin with {LIVE} or {GONE}")),
    };
    let (run, made, said, json) = (part(), part(), part(), part());
    let made = text(made).and_then(|made| made.parse().ok());
    let made = made.ok_or("its third word must be a number")?;
    let instance: Instance = read_json(json)?;
    if text(run) != Some(instance.incarnation().to_string().as_str()) {
        return Err("its second word must be the incarnation that its JSON says".to_owned());
    }
    let is_id = InstanceId::new(text(id).unwrap_or_default()).is_ok_and(|id| id == *instance.id());
    if instance.service() != service || !is_id {
        return Err(format!(
            "it says that it is {:?} of {:?}",
            instance.id(),
            instance.service()
        ));
    }
    // What a later version says in place of the owner, this one does not understand: the owner counts.
    let instance = instance.with_override(override_of(said));
    let record = Record::new(instance, is_withdrawn);
    Ok(Stored { record, made })
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn instance() -> Instance {
        Instance::new("s", "h:1").unwrap().with_tag("two words")
    }

    fn stored(instance: &Instance, begin: &str) -> Vec<u8> {
        let json = encode("test", instance).unwrap();
        [begin.as_bytes(), &json].concat()
    }

    fn read(value: &[u8], id: &InstanceId) -> Result<Stored, String> {
        let service = ServiceName::new("s").unwrap();
        decode(&service, id.as_str().as_bytes(), value)
    }

    #[test]
    fn a_value_says_the_record_when_it_was_made_and_what_an_operator_says() {
        let instance = instance();
        let run = instance.incarnation();
        let value = stored(&instance, &format!("live {run} 17 draining "));
        let overridden = instance.clone().with_override(Override::Draining);
        let expected = Stored {
            record: Record::Live(overridden),
            made: 17,
        };
        assert_eq!(read(&value, instance.id()).unwrap(), expected);
        let value = stored(&instance, &format!("gone {run} 17 later "));
        let gone = read(&value, instance.id()).unwrap();
        assert_eq!(gone.record, Record::Withdrawn(instance));
    }

    #[test]
    fn what_cannot_be_understood_says_why() {
        let instance = instance();
        let (id, run) = (instance.id(), instance.incarnation());
        let json = String::from_utf8(encode("test", &instance).unwrap()).unwrap();
        let of_another = stored(&Instance::new("t", "h:1").unwrap(), "live ");
        for (value, why) in [
            (String::new(), "live or gone"),
            (json.clone(), "live or gone"),
            ("live".to_owned(), "third word"),
            (format!("live {run} soon - {json}"), "third word"),
            (format!("live 0 1 - {json}"), "second word"),
            (format!("live {run} 1 - {{"), "EOF"),
            (format!("live {run} 1 - "), "EOF"),
        ] {
            let reason = read(value.as_bytes(), id).unwrap_err();
            assert!(reason.contains(why), "{value}: {reason}");
        }
        assert!(read(&of_another, id).is_err());
        let value = format!("live {run} 1 - {json}");
        let elsewhere = InstanceId::new("elsewhere").unwrap();
        let reason = read(value.as_bytes(), &elsewhere).unwrap_err();
        assert!(reason.contains("it says that it is"), "{reason}");
        assert!(read(b"live \xff \xff \xff \xff", id).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(value in prop::collection::vec(any::<u8>(), 0..60), id in prop::collection::vec(any::<u8>(), 0..9)) {
            let service = ServiceName::new("s").unwrap();
            let _ = decode(&service, &id, &value);
        }
    }
}
