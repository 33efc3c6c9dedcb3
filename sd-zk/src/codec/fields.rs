//! A JSON object whose fields stay in their order, and whose values stay as they were written.

use std::fmt;

use sd_backend::read_json;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

/// The fields of an object. What is not set again is written byte for byte as it was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(Vec<(String, Box<RawValue>)>);

impl Fields {
    /// The fields of the object that `json` is. An error says why it is none.
    pub(crate) fn read(json: &[u8]) -> Result<Self, String> {
        read_json(json)
    }

    pub(crate) fn raw(&self, name: &str) -> Option<&RawValue> {
        let found = self.0.iter().rev().find(|(field, _)| field == name);
        found.map(|(_, value)| &**value)
    }

    /// The value of a field, as the default if it is missing or null. An error names the field.
    pub(crate) fn get<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T, String> {
        let Some(raw) = self.raw(name) else {
            return Ok(T::default());
        };
        let read: Result<Option<T>, String> = read_json(raw.get().as_bytes());
        Ok(read
            .map_err(|why| format!("{name}: {why}"))?
            .unwrap_or_default())
    }

    /// Sets a field, in its place if it is there, else at the end.
    pub(crate) fn set<T: Serialize>(&mut self, name: &str, value: &T) -> Result<(), String> {
        let raw = to_raw_value(value).map_err(|error| error.to_string())?;
        match self.0.iter_mut().rev().find(|(field, _)| field == name) {
            Some((_, value)) => *value = raw,
            None => self.0.push((name.to_owned(), raw)),
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|(field, _)| field != name);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), &**value))
    }

    pub(crate) fn write(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = all.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}
