//! A record as it is stored: a line of what scripts compare, before the JSON of the instance. Pure functions.
//!
//! ```text
//! live 00f1e2d3c4b5a697 3 1700000000000000 - {"service":"s", …}
//! ```
//!
//! They are: whether it is in service or withdrawn, its run, the number of the write among those of its process, when it was made, and what
//! an operator says of it, or a dash. Where a run has withdrawn a record that was not there, `none` stands in its place, without JSON.

use sd_backend::{Record, read_json};
use sd_core::{Error, ErrorKind, Instance, InstanceId, Override, ServiceName};

const LIVE: &str = "live";
const GONE: &str = "gone";
const NONE: &str = "none";
/// An operator says nothing.
const NOTHING: &str = "-";

/// What a stored value says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    Record {
        /// With what an operator says of it.
        record: Record,
        /// Its place in the order in which records were made.
        made: u64,
    },
    /// There is no record, and what its run may still write comes too late.
    None,
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
    let mut parts = value.splitn(6, |byte| *byte == b' ');
    let mut part = || parts.next().unwrap_or_default();
    let kind = text(part()).unwrap_or_default();
    if ![LIVE, GONE, NONE].contains(&kind) {
        return Err(format!("it does not begin with {LIVE} or {GONE}"));
    }
    let (run, write, made, said, json) = (part(), part(), part(), part(), part());
    number(write).ok_or("its third word must be a number")?;
    let made = number(made).ok_or("its fourth word must be a number")?;
    if kind == NONE {
        return Ok(Stored::None);
    }
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
    let record = Record::new(instance, kind == GONE);
    Ok(Stored::Record { record, made })
}

fn number(digits: &[u8]) -> Option<u64> {
    text(digits)?.parse().ok()
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
        let value = stored(&instance, &format!("live {run} 3 17 draining "));
        let overridden = instance.clone().with_override(Override::Draining);
        let is = |record| Stored::Record { record, made: 17 };
        let live = read(&value, instance.id()).unwrap();
        assert_eq!(live, is(Record::Live(overridden)));
        let value = stored(&instance, &format!("gone {run} 3 17 later "));
        let gone = read(&value, instance.id()).unwrap();
        assert_eq!(gone, is(Record::Withdrawn(instance.clone())));
        let mark = format!("none {run} 3 0 - ");
        let none = read(mark.as_bytes(), instance.id()).unwrap();
        assert_eq!(none, Stored::None);
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
            (format!("live {run} soon 1 - {json}"), "third word"),
            (format!("live {run} 3 soon - {json}"), "fourth word"),
            (format!("live {run} 3 -1 - {json}"), "fourth word"),
            (format!("live 0 3 1 - {json}"), "second word"),
            (format!("live {run} 3 1 - {{"), "EOF"),
            (format!("live {run} 3 1 - "), "EOF"),
        ] {
            let reason = read(value.as_bytes(), id).unwrap_err();
            assert!(reason.contains(why), "{value}: {reason}");
        }
        assert!(read(&of_another, id).is_err());
        let value = format!("live {run} 3 1 - {json}");
        let elsewhere = InstanceId::new("elsewhere").unwrap();
        let reason = read(value.as_bytes(), &elsewhere).unwrap_err();
        assert!(reason.contains("it says that it is"), "{reason}");
        assert!(read(b"live \xff \xff \xff \xff \xff", id).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(value in prop::collection::vec(any::<u8>(), 0..60), id in prop::collection::vec(any::<u8>(), 0..9)) {
            let service = ServiceName::new("s").unwrap();
            let _ = decode(&service, &id, &value);
        }
    }
}
