//! What the key of an election says of who leads.
//!
//! The token of a term is the index at which its leader took the lock. Any later write moves the key's own index, so a leader
//! that replaces the value writes the token into it.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sd_core::FencingToken;
use sd_core::port::{CandidateId, Leader};
use serde::{Deserialize, Serialize};

use crate::client::kv::KvEntry;

/// The value of the key while a candidate leads.
#[derive(Serialize, Deserialize)]
struct LeaderRecord {
    id: CandidateId,
    /// `None` as long as the value is the one that was written together with the lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<u64>,
    #[serde(flatten)]
    value: Value,
}

/// Text as it is, for the people who look at it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Value {
    Value(String),
    Base64(String),
}

/// The value that a candidate writes: with the lock, or later in the term of this token.
pub(crate) fn encode(id: CandidateId, token: Option<u64>, value: &[u8]) -> Vec<u8> {
    let value = match std::str::from_utf8(value) {
        Ok(text) => Value::Value(text.to_owned()),
        Err(_) => Value::Base64(STANDARD.encode(value)),
    };
    // Text and numbers can always be written as JSON.
    serde_json::to_vec(&LeaderRecord { id, token, value }).unwrap_or_default()
}

/// The token of the term whose leader has the lock.
pub(crate) fn token(entry: &KvEntry) -> u64 {
    decode(&entry.value)
        .and_then(|(_, token, _)| token)
        .unwrap_or(entry.modify_index)
}

/// Who leads, if the lock is taken. Another program may have taken it in its own way.
pub(crate) fn leader(entry: &KvEntry, domain: &str) -> Option<Leader> {
    if entry.session.is_empty() {
        return None;
    }
    let (id, value) = match decode(&entry.value) {
        Some((id, _, value)) => (Some(id), value),
        None => (None, entry.value.as_slice().into()),
    };
    let token = FencingToken::new(domain, token(entry));
    Some(Leader::new(id, value, token))
}

fn decode(stored: &[u8]) -> Option<(CandidateId, Option<u64>, Arc<[u8]>)> {
    let record: LeaderRecord = serde_json::from_slice(stored).ok()?;
    let value = match record.value {
        Value::Value(text) => text.into_bytes(),
        Value::Base64(text) => STANDARD.decode(text).ok()?,
    };
    Some((record.id, record.token, value.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: &[u8], session: &str) -> KvEntry {
        KvEntry {
            key: String::new(),
            value: value.to_vec(),
            session: session.to_owned(),
            modify_index: 7,
        }
    }

    #[test]
    fn a_leader_is_read_as_it_was_written() {
        let id = CandidateId::from_u64(0xab).unwrap();
        let text = encode(id, None, b"host-7");
        assert_eq!(text, br#"{"id":"00000000000000ab","value":"host-7"}"#);
        for value in [&b"host-7"[..], &[0, 255, b'"'], b""] {
            for token in [None, Some(3)] {
                let read = leader(&entry(&encode(id, token, value), "s"), "d").unwrap();
                assert_eq!((read.id, &*read.value), (Some(id), value));
                assert_eq!(read.token, FencingToken::new("d", token.unwrap_or(7)));
            }
        }
        assert!(leader(&entry(&text, ""), "d").is_none());
    }

    #[test]
    fn another_programs_value_is_told_as_it_is() {
        for value in [
            &b""[..],
            b"host",
            b"{}",
            b"\xff",
            br#"{"id":"0","value":"x"}"#,
        ] {
            let read = leader(&entry(value, "s"), "d").unwrap();
            assert_eq!((read.id, &*read.value), (None, value));
            assert_eq!(read.token.value(), 7);
        }
    }
}
