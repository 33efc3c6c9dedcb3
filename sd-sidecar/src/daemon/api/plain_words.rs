//! What serde says of a body, in words that do not need Rust to be understood.

use std::borrow::Cow;

/// What is said of a field of 16 bits.
pub(super) const EXPECTED_U16: &str = "a number from 0 to 65535";

/// The same message, in the words of JSON.
pub(super) fn in_plain_words(message: &str) -> Cow<'_, str> {
    let Some((found, expected)) = message.rsplit_once(", expected ") else {
        return Cow::Borrowed(message);
    };
    let expected = match expected {
        "u8" => "a number from 0 to 255",
        "u16" => EXPECTED_U16,
        "u32" => "a number from 0 to 4294967295",
        "u64" | "usize" => "a number that is not negative",
        "a nonzero u32" => "a number from 1 to 4294967295",
        "a boolean" => "true or false",
        "a string" => "a text",
        "a sequence" => "a list",
        "a map" => "an object",
        "a duration" => "a duration such as 500ms, 10s or 1m30s",
        "struct AppInstance" => "an object with app_id and app_instance_id",
        other if other.starts_with("struct ") => "an object",
        _ => return Cow::Borrowed(message),
    };
    let found = match found {
        "invalid type: sequence" => "invalid type: list",
        "invalid type: map" => "invalid type: object",
        other => other,
    };
    Cow::Owned(format!("{found}, expected {expected}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::Declaration;

    #[test]
    fn what_was_expected_is_said_without_names_of_rust() {
        for (field, value, expected) in [
            ("port", json!(70_000), "a number from 0 to 65535"),
            ("port", json!("80"), "a number from 0 to 65535"),
            ("tags", json!("blue"), "a list"),
            ("metadata", json!(["a"]), "an object"),
            (
                "app",
                json!("a"),
                "an object with app_id and app_instance_id",
            ),
            ("ttl", json!(5), "a duration such as"),
            ("ttl", json!("soon"), "a duration such as"),
            ("ready", json!("yes"), "true or false"),
            ("version", json!(1), "a text"),
            ("checks", json!([1]), "an object"),
            (
                "checks",
                json!([{"kind": "tcp", "passes_after": 0}]),
                "a number from 1 to",
            ),
        ] {
            let mut body = json!({"service": "greeter"});
            body[field] = value;
            let error = serde_json::from_value::<Declaration>(body).unwrap_err();
            let said = in_plain_words(&error.to_string()).into_owned();
            assert!(said.contains(expected), "{field}: {said}");
            for of_rust in ["u16", "u32", "sequence", "struct", "map"] {
                assert!(!said.contains(of_rust), "{said}");
            }
        }
        assert_eq!(
            in_plain_words("missing field `service`"),
            "missing field `service`"
        );
    }
}
