//! Reading a stored JSON value, or saying what in it cannot be read.

use sd_core::{Printable, brief};
use serde::de::DeserializeOwned;

/// Of the 256 bytes of a reason, so that there is room for the rule.
const MOST_PATH_BYTES: usize = 48;
const MOST_VALUE_BYTES: usize = 96;
/// Between what serde found and the rule that it breaks.
const RULE: &str = ", expected ";

/// What a stored value says. An error names the field, what is there and the rule that it breaks, in at most 256 bytes, escaped.
///
/// # Errors
/// Why it cannot be read.
pub fn read_json<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|error| {
        // Only now, because it costs time to know at each step where the reader is.
        let reader = &mut serde_json::Deserializer::from_slice(value);
        let found: Result<T, _> = serde_path_to_error::deserialize(reader);
        let path = found.err().map(|error| error.path().to_string());
        reason(path.as_deref().unwrap_or_default(), &error.to_string())
    })
}

fn reason(path: &str, why: &str) -> String {
    let path = match path {
        // The value as a whole.
        "" | "." => String::new(),
        path => format!("{}: ", shown(path, MOST_PATH_BYTES)),
    };
    match why.rsplit_once(RULE) {
        Some((found, rule)) => brief(format_args!(
            "{path}{}{RULE}{}",
            shown(found, MOST_VALUE_BYTES),
            Printable(rule)
        )),
        None => brief(format_args!("{path}{}", Printable(why))),
    }
}

/// The beginning of a text, escaped. `…` stands for the rest.
fn shown(text: &str, most: usize) -> String {
    let mut shown = Printable(text).to_string();
    if shown.len() > most {
        let end = (0..=most).rev().find(|end| shown.is_char_boundary(*end));
        shown.truncate(end.unwrap_or_default());
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use sd_core::Instance;

    use super::*;

    fn why(fields: &str) -> String {
        let value = format!(r#"{{"service":"s","id":"i",{fields}}}"#);
        read_json::<Instance>(value.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_reason_names_the_field_what_is_there_and_the_rule() {
        let run = r#""incarnation":"1""#;
        for (fields, parts) in [
            (r#""weight":"heavy""#, ["weight: ", "heavy", "u16"]),
            (r#""weight":70000"#, ["weight: ", "70000", "u16"]),
            (r#""metadata":{"a":1}"#, ["metadata.a: ", "1", "string"]),
            (r#""address":"h""#, ["address: ", "\"h\"", "no port"]),
            (r#""address":"h:0""#, ["address: ", "h:0", "give the port"]),
            (r#""id2":0,"tags":7"#, ["tags: ", "7", "sequence"]),
        ] {
            let reason = why(&format!("{run},{fields}"));
            for part in parts {
                assert!(reason.contains(part), "{fields}: {reason}");
            }
        }
        let reason = why(r#""incarnation":"first","address":"h:1""#);
        assert!(
            reason.contains("\"first\"") && reason.contains("hexadecimal"),
            "{reason}"
        );
        assert!(why(run).contains("missing field `address`"));
    }

    #[test]
    fn a_reason_has_room_for_the_rule_and_nothing_that_a_terminal_obeys() {
        let long = "ö".repeat(1 << 12);
        let odd = "\u{202e}".repeat(100);
        for (fields, rule) in [
            (format!(r#""weight":"{long}""#), "u16"),
            (format!(r#""weight":"{odd}""#), "u16"),
            (format!(r#""address":"{long}""#), "no port"),
            (format!(r#""address":"{odd}""#), "no port"),
            (format!(r#""metadata":{{"{long}":1}}"#), "string"),
            (format!(r#""incarnation":"{odd}""#), "hexadecimal"),
        ] {
            let reason = why(&fields);
            assert!(reason.len() <= 256 && reason.contains(rule), "{reason}");
            assert!(reason.chars().all(Printable::is_printable), "{reason}");
        }
    }

    #[test]
    fn a_reason_repeats_no_password() {
        for address in ["http://u:sesame@h:1", "u:sesame@h:1", "u:sesame@h"] {
            let reason = why(&format!(r#""incarnation":"1","address":"{address}""#));
            assert!(
                reason.contains("user name") && !reason.contains("sesame"),
                "{reason}"
            );
        }
    }
}
