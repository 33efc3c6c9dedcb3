//! Our own form of a stored record: the JSON of an [`Instance`], with a mark beside its fields while it is withdrawn.
//!
//! Readers meet a mark rarely and an instance always, so both are read in one pass: the mark is taken out of the fields on their way
//! to the instance.

use std::fmt;

use sd_backend::read_json;
use sd_core::Instance;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Error, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The field that marks a record which is being withdrawn.
const WITHDRAWN: &str = "withdrawn";

/// An instance with the mark.
#[derive(Serialize)]
struct Tombstone<'a> {
    #[serde(flatten)]
    instance: &'a Instance,
    withdrawn: bool,
}

/// The value of a record that is about to be deleted. Readers that do not know the mark see an instance that is not ready.
pub(crate) fn encode_withdrawn(instance: &Instance) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Tombstone {
        instance: &instance.clone().with_ready(false),
        withdrawn: true,
    })
}

/// The instance that `value` says, and whether it is being withdrawn. An error says why it cannot be understood.
pub(crate) fn decode(value: &[u8]) -> Result<(Instance, bool), String> {
    let stored: Stored = read_json(value)?;
    Ok((stored.instance, stored.withdrawn))
}

struct Stored {
    instance: Instance,
    withdrawn: bool,
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(StoredVisitor)
    }
}

struct StoredVisitor;

impl<'de> Visitor<'de> for StoredVisitor {
    type Value = Stored;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, all: A) -> Result<Stored, A::Error> {
        let mut withdrawn = None;
        let fields = InstanceFields {
            all,
            withdrawn: &mut withdrawn,
        };
        let instance = Instance::deserialize(MapAccessDeserializer::new(fields))?;
        Ok(Stored {
            instance,
            withdrawn: withdrawn.unwrap_or_default(),
        })
    }
}

/// All fields but the mark, which it keeps.
struct InstanceFields<'a, A> {
    all: A,
    withdrawn: &'a mut Option<bool>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for InstanceFields<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        mut seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        loop {
            match self.all.next_key_seed(UnlessMark(seed))? {
                None => return Ok(None),
                Some(Name::Field(field)) => return Ok(Some(field)),
                Some(Name::Mark(unused)) => {
                    if self.withdrawn.is_some() {
                        return Err(A::Error::duplicate_field(WITHDRAWN));
                    }
                    *self.withdrawn = Some(self.all.next_value()?);
                    seed = unused;
                }
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.all.next_value_seed(seed)
    }
}

/// Reads the name of a field with another seed, unless it is that of the mark.
struct UnlessMark<K>(K);

enum Name<F, K> {
    Field(F),
    Mark(K),
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for UnlessMark<K> {
    type Value = Name<K::Value, K>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<'de, K: DeserializeSeed<'de>> Visitor<'de> for UnlessMark<K> {
    type Value = Name<K::Value, K>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        if name == WITHDRAWN {
            return Ok(Name::Mark(self.0));
        }
        let field = self.0.deserialize(name.into_deserializer())?;
        Ok(Name::Field(field))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As it was read in two passes.
    fn in_two_passes(value: &[u8]) -> Result<(Instance, bool), ()> {
        #[derive(Deserialize)]
        struct Mark {
            #[serde(default)]
            withdrawn: bool,
        }
        let instance = serde_json::from_slice(value).map_err(drop)?;
        let mark: Mark = serde_json::from_slice(value).map_err(drop)?;
        Ok((instance, mark.withdrawn))
    }

    const FIELDS: [&str; 5] = [
        r#""service":"s""#,
        r#""id":"i""#,
        r#""incarnation":"1""#,
        r#""address":"h:1""#,
        r#""metadata":{"withdrawn":"no"}"#,
    ];

    fn stored(further: &[&str]) -> Vec<u8> {
        let fields: Vec<&str> = FIELDS.iter().chain(further).copied().collect();
        format!("{{{}}}", fields.join(",")).into_bytes()
    }

    #[test]
    fn one_pass_reads_what_two_read() {
        let deep = format!(r#""later":{}{}"#, "[".repeat(1000), "]".repeat(1000));
        for further in [
            &[][..],
            &[r#""withdrawn":true"#],
            &[r#""withdrawn":false"#],
            &[r#""withdr\u0061wn":true,"ready":false"#],
            &[r#""Withdrawn":true"#],
            &[r#""withdrawn":null"#],
            &[r#""withdrawn":"true""#],
            &[r#""withdrawn":true"#, r#""withdrawn":true"#],
            &[r#""weight":"heavy""#],
            &[r#""weight":1"#, r#""weight":1"#],
            &[r#""withdrawn":true"#, r#""weight":-1"#],
            &[r#""later":{"withdrawn":true}"#],
            &[deep.as_str()],
            &[r#""later":"\ud800""#],
        ] {
            let value = stored(further);
            let read = decode(&value).map_err(drop);
            assert_eq!(read, in_two_passes(&value), "{further:?}");
        }
        assert!(decode(&stored(&[r#""withdrawn":true"#])).unwrap().1);
        for value in [
            &b"{}"[..],
            b"{",
            b"{}}",
            b"{\"withdrawn\":true}",
            b"{\"withdrawn\"",
            b"{\"\xff\":1}",
        ] {
            assert_eq!(decode(value).map_err(drop), in_two_passes(value));
        }
    }

    proptest! {
        #[test]
        fn one_pass_reads_what_two_read_in_any_order(
            order in Just([0, 1, 2, 3, 4, 5]).prop_shuffle(), cut in 0..120_usize, mark: bool,
        ) {
            let mark = format!(r#""withdrawn":{mark}"#);
            let all: Vec<&str> = FIELDS.into_iter().chain([mark.as_str()]).collect();
            let fields: Vec<&str> = order.iter().map(|at| all[*at]).collect();
            let whole = format!("{{{}}}", fields.join(","));
            prop_assert_eq!(decode(whole.as_bytes()).map_err(drop), in_two_passes(whole.as_bytes()));
            let part = whole.as_bytes().get(..cut).unwrap_or_default();
            prop_assert_eq!(decode(part).map_err(drop), in_two_passes(part));
        }
    }
}
