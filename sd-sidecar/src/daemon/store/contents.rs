//! What is in a state file, up to where it can be read: one that a disk has cut short still has what stands before the cut.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// The parts of a file.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// It stands first, and `ending` next, so that both are known of a file that was cut.
    pub(super) version: Option<u32>,
    /// Everything is to end. Not written by older agents.
    pub(super) ending: bool,
    /// None if the file has no list of them.
    pub(super) registrations: Option<Vec<Value>>,
}

impl Contents {
    /// Reads as far as it can, and says why not to the end.
    pub(super) fn read(bytes: &[u8]) -> (Self, Option<String>) {
        let mut contents = Self::default();
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let read = json.deserialize_map(Fields(&mut contents));
        let read = read.and_then(|()| json.end());
        (contents, read.err().map(|error| error.to_string()))
    }
}

/// Takes each field as it comes.
struct Fields<'a>(&'a mut Contents);

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the state of an agent")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "version" => self.0.version = Some(map.next_value()?),
                "ending" => self.0.ending = map.next_value()?,
                "registrations" => {
                    map.next_value_seed(Each(self.0.registrations.get_or_insert_default()))?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// Takes each part of a list as it comes.
struct Each<'a>(&'a mut Vec<Value>);

impl<'de> DeserializeSeed<'de> for Each<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, list: D) -> Result<(), D::Error> {
        list.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Each<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of registrations")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(one) = list.next_element()? {
            self.0.push(one);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_a_cut_is_read_wherever_it_is() {
        let whole = r#"{"version":1,"later":[{}],"registrations":[{"a":1},{"b":2}]}"#;
        let mut most = 0;
        for length in 0..whole.len() {
            let (contents, cut) = Contents::read(&whole.as_bytes()[..length]);
            assert!(cut.is_some(), "{length}");
            let read = contents.registrations.unwrap_or_default().len();
            assert!(read >= most, "{length}");
            most = read;
            if most > 0 {
                assert_eq!(contents.version, Some(1));
            }
        }
        let (contents, cut) = Contents::read(whole.as_bytes());
        assert_eq!(
            (contents.registrations.map(|all| all.len()), cut),
            (Some(2), None)
        );
        for wrong in [
            "[]",
            "null",
            "{} x",
            "{\"registrations\":{}}",
            "{\"version\":-1}",
        ] {
            assert!(Contents::read(wrong.as_bytes()).1.is_some(), "{wrong}");
        }
    }
}
