//! The candidates of reception's elections: `_c_<32 hexadecimal digits>-<id>-<sequence>`, with the JSON of an instance. Pure functions.

use std::collections::BTreeMap;

use sd_core::port::CandidateId;
use sd_core::{Address, Endpoint};
use serde::{Deserialize, Serialize};

use crate::codec::protected_name::{PREFIX, ProtectedName};

/// How the digits of our nodes begin. A random number and the candidate's id follow.
const MARK: &str = "73642d7a";
/// The attribute with the value of a candidate of ours, unless that is an address.
const VALUE: &str = "value";
/// The same for a value that is no text: its hexadecimal digits.
const VALUE_BYTES: &str = "value_bytes";

#[derive(Deserialize, Serialize)]
struct Json {
    address: String,
    port: u16,
    attributes: BTreeMap<String, String>,
}

/// Whether reception takes the node for a candidate.
pub(crate) fn is_candidate(node: &str) -> bool {
    ProtectedName::read(node).is_some()
}

/// What the name of a candidate's node begins with.
pub(crate) fn node_prefix(id: CandidateId, nonce: u32) -> String {
    format!("{PREFIX}{MARK}{nonce:08x}{id}-{id}-")
}

/// Whose node this is. `None` if another program made it.
pub(crate) fn id_of(node: &str) -> Option<CandidateId> {
    let name = ProtectedName::read(node)?;
    let is_ours = name.guid.starts_with(MARK) && name.guid.ends_with(name.id);
    is_ours.then(|| name.id.parse().ok())?
}

/// What reception orders candidates by.
pub(crate) fn sequence(node: &str) -> &str {
    ProtectedName::read(node).map_or(node, |name| name.sequence)
}

/// What the node of a candidate with this value holds. An address is one to reception as well.
///
/// # Errors
/// It cannot be written.
pub(crate) fn data(value: &[u8]) -> serde_json::Result<Vec<u8>> {
    let text = str::from_utf8(value).ok();
    let address = text.and_then(|text| text.parse::<Endpoint>().ok());
    let address = address.filter(|address| Some(address.to_string().as_str()) == text);
    let (host, port, attribute) = match (address.as_ref().map(Endpoint::address), text) {
        (Some(Address::Tcp { host, port }), _) => (host, port, None),
        (_, Some(text)) => ("", 0, Some((VALUE, text.to_owned()))),
        (_, None) => {
            let digits = value.iter().map(|byte| format!("{byte:02x}"));
            (
                "",
                0,
                Some((VALUE_BYTES, digits.collect::<Vec<_>>().concat())),
            )
        }
    };
    let attributes = attribute.map(|(key, value)| (key.to_owned(), value));
    serde_json::to_vec(&Json {
        address: host.to_owned(),
        port,
        attributes: attributes.into_iter().collect(),
    })
}

/// The value of the candidate whose node holds this: ours as it was given, and reception's its address.
pub(crate) fn value(data: Vec<u8>) -> Vec<u8> {
    let Ok(mut json) = serde_json::from_slice::<Json>(&data) else {
        return data;
    };
    if let Some(value) = json.attributes.remove(VALUE) {
        return value.into_bytes();
    }
    let bytes = json.attributes.get(VALUE_BYTES);
    if let Some(bytes) = bytes.and_then(|digits| bytes_of(digits)) {
        return bytes;
    }
    match Endpoint::tcp(&json.address, json.port) {
        Ok(address) => address.to_string().into_bytes(),
        Err(_) => data,
    }
}

/// The bytes with these hexadecimal digits.
fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let byte = |two: &[u8]| u8::from_str_radix(str::from_utf8(two).ok()?, 16).ok();
    digits.as_bytes().chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEPTIONS: &str =
        "_c_0123456789abcdef0123456789abcdef-8e4c4c4f-9d37-1f6e-2d9a-11aa22bb33cc-0000000002";

    #[test]
    fn a_candidate_is_found_again_by_the_name_of_its_node_and_is_one_to_reception() {
        for id in [1, 0xab, i64::MAX.cast_unsigned()] {
            let id = CandidateId::from_u64(id).unwrap();
            for nonce in [0, u32::MAX] {
                let node = node_prefix(id, nonce) + "0000000007";
                assert_eq!(id_of(&node), Some(id), "{node}");
                assert!(is_candidate(&node), "{node}");
                assert_eq!(sequence(&node), "0000000007");
            }
        }
        let id = CandidateId::from_u64(0xab).unwrap();
        assert_eq!(
            node_prefix(id, 0x0123_4567),
            "_c_73642d7a0123456700000000000000ab-00000000000000ab-"
        );
    }

    #[test]
    fn receptions_candidates_are_candidates_and_none_of_ours() {
        assert!(is_candidate(RECEPTIONS));
        assert_eq!(id_of(RECEPTIONS), None);
        assert_eq!(sequence(RECEPTIONS), "0000000002");
        for node in [
            "",
            "host-7",
            "_c_0123456789abcdef-id-0000000001",
            "_c_0123456789abcdef0123456789abcdef-id-1",
            "_c_0123456789abcdef0123456789abcdef-0000000001",
            "_c_73642d7a-1234-8567-0000-0000000000ab-latch-0000000001",
        ] {
            assert!(!is_candidate(node), "{node}");
        }
    }

    #[test]
    fn a_value_is_read_again_as_it_was_and_an_address_is_one_to_reception() {
        for (given, stored) in [
            ("h:1", r#"{"address":"h","port":1,"attributes":{}}"#),
            ("[::1]:2", r#"{"address":"::1","port":2,"attributes":{}}"#),
            ("", r#"{"address":"","port":0,"attributes":{"value":""}}"#),
            (
                "h:01",
                r#"{"address":"","port":0,"attributes":{"value":"h:01"}}"#,
            ),
            (
                "unix:/a",
                r#"{"address":"","port":0,"attributes":{"value":"unix:/a"}}"#,
            ),
        ] {
            let data = data(given.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(data.clone()).unwrap(), stored);
            assert_eq!(value(data), given.as_bytes());
        }
        let no_text = data(&[0, 0xff]).unwrap();
        let stored = r#"{"address":"","port":0,"attributes":{"value_bytes":"00ff"}}"#;
        assert_eq!(String::from_utf8(no_text.clone()).unwrap(), stored);
        assert_eq!(value(no_text), [0, 0xff]);
        let receptions = br#"{"address":"h","port":80,"attributes":{"external":"true"}}"#;
        assert_eq!(value(receptions.to_vec()), b"h:80");
        for garbage in [
            "garbage",
            r#"{"address":"","port":0,"attributes":{"value_bytes":"é"}}"#,
        ] {
            assert_eq!(value(garbage.into()), garbage.as_bytes());
        }
    }
}
