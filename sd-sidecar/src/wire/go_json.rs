//! JSON as a program in Go decodes it into a struct: names of fields in any case, the last of a name counts, `null` changes nothing,
//! unknown fields are ignored, and so is what follows the first value. Nothing is kept of what is ignored.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::dialect::BadBody;

/// Defines a struct that is decoded as Go does. What is absent has its default.
macro_rules! go_struct {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $field:ident $(as $key:literal)?: $kind:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Default)]
        $vis struct $name { $($(#[$field_meta])* $vis $field: $kind),* }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields;
                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        let mut read = <$name>::default();
                        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                            match key.to_ascii_lowercase().as_str() {
                                $(crate::wire::go_json::go_struct!(@key $field $($key)?) => {
                                    if let Some(value) = map.next_value::<Option<$kind>>()? {
                                        read.$field = value;
                                    }
                                })*
                                _ => { map.next_value::<serde::de::IgnoredAny>()?; }
                            }
                        }
                        Ok(read)
                    }
                }
                deserializer.deserialize_map(Fields)
            }
        }
    };
    (@key $field:ident $key:literal) => { $key };
    (@key $field:ident) => { stringify!($field) };
}

pub(crate) use go_struct;

/// A list. One that would cost much memory is refused.
#[derive(Debug, PartialEq)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

impl<T> List<T> {
    /// More than any process has methods.
    const MOST: usize = 16_384;
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == List::<T>::MOST {
                        return Err(A::Error::custom(format_args!(
                            "more than {} items",
                            List::<T>::MOST
                        )));
                    }
                    items.push(item);
                }
                Ok(List(items))
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

/// Decodes the first value of a body.
///
/// # Errors
/// What is wrong, with the field.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, BadBody> {
    // Go puts U+FFFD where bytes are no text.
    let text = String::from_utf8_lossy(body);
    let mut json = serde_json::Deserializer::from_str(&text);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let field = error
            .path()
            .iter()
            .next()
            .map(|_| path.to_ascii_lowercase());
        let error = error.into_inner();
        match (field, error.classify()) {
            (Some(field), serde_json::error::Category::Data) => {
                BadBody::new(format_args!("{field}: {error}"))
            }
            (_, serde_json::error::Category::Eof) if text.trim().is_empty() => {
                BadBody::new("the body is empty: send a JSON object")
            }
            _ => BadBody::new(format_args!(
                "the body is not a JSON object as expected: {error}"
            )),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    go_struct! {
        #[derive(Debug, PartialEq)]
        struct Inner { deep: i64 }
    }
    go_struct! {
        #[derive(Debug, PartialEq)]
        struct Outer { name: String, port: i64, kind as "type": String, inner: Inner, list: List<String> }
    }

    fn outer(body: &str) -> Outer {
        decode(body.as_bytes()).unwrap()
    }

    fn refused(body: &str) -> String {
        decode::<Outer>(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn names_match_in_any_case_and_the_last_counts() {
        let read = outer(r#"{"NAME":"a","name":"b","Type":"t","iNner":{"DEEP":1}}"#);
        assert_eq!((read.name.as_str(), read.kind.as_str()), ("b", "t"));
        assert_eq!(read.inner.deep, 1);
    }

    #[test]
    fn what_is_unknown_null_or_after_the_first_value_is_ignored() {
        let read = outer(r#" {"x":[{"y":"\ud800"}],"port":1,"port":null,"list":null} trash"#);
        assert_eq!(
            read,
            Outer {
                port: 1,
                ..Outer::default()
            }
        );
        assert_eq!(outer("{}{\"port\":2}").port, 0);
    }

    #[test]
    fn an_error_names_the_field() {
        for (body, error) in [
            (
                r#"{"Port":"9"}"#,
                "port: invalid type: string \"9\", expected i64 at line 1 column 11",
            ),
            (
                r#"{"port":1.5}"#,
                "port: invalid type: floating point `1.5`, expected i64 at line 1 column 11",
            ),
            (
                r#"{"inner":{"deep":true}}"#,
                "inner.deep: invalid type: boolean `true`, expected i64 at line 1 column 21",
            ),
            (
                r#"{"inner":[]}"#,
                "inner: invalid type: sequence, expected an object at line 1 column 9",
            ),
            (
                r#"{"list":["a",1]}"#,
                "list[1]: invalid type: integer `1`, expected a string at line 1 column 14",
            ),
        ] {
            assert_eq!(refused(body), error, "{body}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert_eq!(refused(" "), "the body is empty: send a JSON object");
        for body in ["[]", "1", "\"a\"", "{", "{\"port\":", "nul", "{\"a\" 1}"] {
            let error = refused(body);
            assert!(
                error.starts_with("the body is not a JSON object"),
                "{body}: {error}"
            );
        }
        let deep = format!("{{\"x\":{}", "[".repeat(100_000));
        assert!(refused(&deep).len() < 300);
    }

    #[test]
    fn a_list_that_would_cost_much_memory_is_refused() {
        let list = |items: usize| format!("{{\"list\":[{}]}}", vec!["\"\""; items].join(","));
        assert_eq!(outer(&list(16_384)).list.0.len(), 16_384);
        assert!(refused(&list(16_385)).starts_with("list: more than 16384 items"));
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_and_a_long_value_makes_a_short_error() {
        let read: Outer = decode(b"{\"name\":\"a\xffb\"}").unwrap();
        assert_eq!(read.name, "a\u{fffd}b");
        assert!(refused(&format!("{{\"port\":\"{}\"}}", "x".repeat(1 << 20))).len() < 300);
    }
}
