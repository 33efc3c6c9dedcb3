//! JSON that moves no terminal's cursor: what is not printable is escaped in it.

use std::io::{self, Write};

use axum::body::Bytes;
use sd_core::Printable;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

/// Compact JSON on one line. Means the same as what was given; characters that are not printable are `\u` escapes.
///
/// # Errors
/// If the value has no JSON form, such as a map whose keys are no text.
pub(super) fn to_vec(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut json = Vec::with_capacity(256);
    value.serialize(&mut Serializer::with_formatter(&mut json, Escaping))?;
    Ok(json)
}

/// As [`to_vec`]. What has no JSON form, which none of our types is, becomes `null`.
pub(super) fn to_bytes(value: &impl Serialize) -> Bytes {
    to_vec(value).map_or(Bytes::from_static(b"null"), Bytes::from)
}

struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let is_plain = |byte: u8| (b' '..=b'~').contains(&byte);
        if fragment.bytes().all(is_plain) {
            return writer.write_all(fragment.as_bytes());
        }
        for c in fragment.chars() {
            if Printable::is_printable(c) {
                writer.write_all(c.encode_utf8(&mut [0; 4]).as_bytes())?;
                continue;
            }
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn json_means_the_same_and_moves_no_cursor() {
        for text in [
            "plain",
            "größe",
            "\u{9b}2J",
            "a\u{202e}b",
            "\u{e0041}",
            "\u{1b}\n\"\\",
        ] {
            let value = BTreeMap::from([(text, text)]);
            let json = String::from_utf8(to_vec(&value).unwrap()).unwrap();
            assert!(json.chars().all(Printable::is_printable), "{json:?}");
            let read: BTreeMap<String, String> = serde_json::from_str(&json).unwrap();
            assert_eq!(read.get(text).map(String::as_str), Some(text));
        }
    }
}
