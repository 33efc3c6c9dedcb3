//! Objects as Go's `encoding/json` reads them, and as modules in Go may therefore write them.

use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Has a type read as Go reads it: keys in whatever case, `null` and what is missing as nothing, unknown keys passed over, and the last
/// value of a key that comes twice.
macro_rules! read_as_go {
    ($type:ident { $($key:literal => $field:ident),+ $(,)? }) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Object;

                impl<'de> serde::de::Visitor<'de> for Object {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> Result<Self::Value, A::Error> {
                        use $crate::protocol::lenient::{Key, value};

                        let mut read = $type::default();
                        while let Some(key) = map.next_key_seed(Key(&[$($key),+]))? {
                            match key {
                                $(Some($key) => read.$field = value(&mut map)?,)+
                                _ => drop(map.next_value::<serde::de::IgnoredAny>()?),
                            }
                        }
                        Ok(read)
                    }
                }

                deserializer.deserialize_map(Object)
            }
        }
    };
}
pub(crate) use read_as_go;

/// Which of these keys one is, if it is one of them.
pub(crate) struct Key(pub(crate) &'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        let keys = self.0.iter().copied();
        Ok(keys
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(key)))
    }
}

/// The value of a key. `null` is nothing: in Go, a list that was never made is written that way.
pub(crate) fn value<'de, A, T>(map: &mut A) -> Result<T, A::Error>
where
    A: MapAccess<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(map.next_value::<Option<T>>()?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use crate::BackendDeclaration;

    #[test]
    fn keys_count_in_whatever_case_and_the_last_value_of_one() {
        for json in [
            r#"{"moduleName":"A","address":{"ip":"h","port":"1"},"requiredModules":[{"name":"B","required":true}]}"#,
            r#"{"ModuleName":"A","Address":{"IP":"h","Port":"1"},"RequiredModules":[{"Name":"B","Required":true}]}"#,
            r#"{"MODULENAME":"A","ADDRESS":{"Ip":"h","PORT":"1"},"requiredmodules":[{"NAME":"B","rEQUIRED":true}]}"#,
            r#"{"moduleName":"x","modulename":"A","address":null,"ADDRESS":{"ip":"h","port":"1"},"requiredModules":[{"name":"B","required":true}]}"#,
        ] {
            let read: BackendDeclaration = serde_json::from_str(json).unwrap();
            assert_eq!(read.module_name, "A", "{json}");
            assert_eq!(read.address.endpoint().unwrap().to_string(), "h:1");
            let required = &read.required_modules[0];
            assert!(required.name == "B" && required.required, "{json}");
        }
        // What a module names itself keeps its case.
        let json = r#"{"EXTRA":{"reqAdminPerm":"p","REQADMINPERM":"q"}}"#;
        let read: crate::EndpointDescriptor = serde_json::from_str(json).unwrap();
        assert_eq!(read.required_admin_permission(), Some("p"));
        assert_eq!(read.extra.unwrap().len(), 2);
    }

    #[test]
    fn a_value_of_another_type_is_refused_by_its_path() {
        for (json, path) in [
            (r#"{"ADDRESS":{"Port":1}}"#, "ADDRESS.Port: "),
            (
                r#"{"endpoints":[{"path":"a"},{"Inner":"x"}]}"#,
                "endpoints[1].Inner: ",
            ),
            (r#"{"endpoints":{}}"#, "endpoints: "),
            ("7", "expected an object"),
        ] {
            let read = sd_backend::read_json::<BackendDeclaration>(json.as_bytes());
            let why = read.unwrap_err();
            assert!(why.contains(path), "{why}");
        }
    }
}
