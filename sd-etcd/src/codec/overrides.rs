//! What operators say of records, stored beside them: keys and values. Pure functions.
//!
//! An override lies in the folder of our records, so that all who read or watch them have it: at the end of the record's key, after
//! [`FOLDER`]. No id of ours is written so, since one that begins with a slash holds no other. In go-kit's layout one may be, so a value
//! there that has not the fields of an override is what another program means by it. Readers that know of no overrides take one for an entry that they cannot read, and
//! skip it.

use sd_backend::read_json;
use sd_core::{Incarnation, Instance, Override};
use serde::{Deserialize, Serialize};

/// Before the end of the record's key.
const FOLDER: &str = "/override/";

/// What an operator says of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredOverride {
    pub(crate) said: Override,
    pub(crate) incarnation: Incarnation,
    /// The create revision of the record. One that is written again is another record, even if its run is the same.
    pub(crate) created: i64,
}

#[derive(Serialize, Deserialize)]
struct Json {
    r#override: String,
    incarnation: Incarnation,
    create_revision: i64,
}

impl StoredOverride {
    /// What it says of a record, if this is the record that it is about.
    pub(crate) fn of(&self, instance: &Instance, create_revision: i64) -> Option<Override> {
        let is_it = self.incarnation == instance.incarnation() && self.created == create_revision;
        is_it.then_some(self.said)
    }
}

/// How the key of an override ends, from how that of its record ends.
pub(crate) fn suffix(record: &str) -> String {
    format!("{FOLDER}{record}")
}

/// How the key of the record ends that an override is about whose own key ends with `suffix`. `None` if no override is stored there.
pub(crate) fn record_suffix(suffix: &str) -> Option<&str> {
    suffix.strip_prefix(FOLDER)
}

pub(crate) fn encode(overriding: &StoredOverride) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Json {
        r#override: overriding.said.as_str().to_owned(),
        incarnation: overriding.incarnation,
        create_revision: overriding.created,
    })
}

/// Whether `value` is an override, of this version or a later one. What another program keeps in its place is not.
pub(crate) fn is_override(value: &[u8]) -> bool {
    serde_json::from_slice::<Json>(value).is_ok()
}

/// The override that `value` says. An error says why it cannot be understood.
pub(crate) fn decode(value: &[u8]) -> Result<StoredOverride, String> {
    let json: Json = read_json(value)?;
    let said = Override::from_name(&json.r#override)
        .ok_or_else(|| format!("{:?} is an override of a later version", json.r#override))?;
    Ok(StoredOverride {
        said,
        incarnation: json.incarnation,
        created: json.create_revision,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sd_core::InstanceId;

    use super::*;
    use crate::codec::names::id_suffix;

    #[test]
    fn an_override_is_of_one_run_and_of_one_of_its_records() {
        let instance = Instance::new("s", "h:1").unwrap();
        let overriding = StoredOverride {
            said: Override::Draining,
            incarnation: instance.incarnation(),
            created: 7,
        };
        let read = decode(&encode(&overriding).unwrap()).unwrap();
        assert_eq!(read, overriding);
        assert_eq!(read.of(&instance, 7), Some(Override::Draining));
        assert_eq!(read.of(&instance, 8), None);
        let next = instance.with_incarnation(Incarnation::random());
        assert_eq!(read.of(&next, 7), None);
    }

    #[test]
    fn what_cannot_be_understood_says_why() {
        let later = br#"{"override":"later","incarnation":"1","create_revision":1}"#;
        assert!(decode(later).unwrap_err().contains("later version"));
        assert!(decode(b"{}").unwrap_err().contains("missing field"));
    }

    #[test]
    fn what_another_program_keeps_is_no_override_whatever_it_is_written_in() {
        let ours = br#" {"override":"later","incarnation":"1","create_revision":1,"until":"noon"}"#;
        assert!(is_override(ours));
        for other in [
            &b"{}"[..],
            br#"{"override":"draining"}"#,
            br#"{"override":true,"incarnation":"1","create_revision":1}"#,
            br#"{"override":"draining","incarnation":"1","create_revision":"1"}"#,
            br#"{"name":"override","address":"h:1"}"#,
            b"http://h:1",
            b"",
        ] {
            assert!(!is_override(other), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn no_id_ends_a_key_like_an_override(id in "[/a%]{0,4}override/[/a% ]{0,4}|\\PC{1,12}") {
            let Ok(id) = InstanceId::new(&id) else { return Ok(()) };
            let written = id_suffix(&id);
            prop_assert_eq!(record_suffix(&written), None);
            let stored = suffix(&written);
            prop_assert_eq!(record_suffix(&stored), Some(&*written));
        }
    }
}
