//! A copy of the decoder of the first version. It must never change: it stands for readers that are not updated.
//!
//! It shares no code with the rest of the crate, so that nothing can change it by accident.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What the first version makes of an entry of ours that is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrozenRecord {
    pub(crate) id: String,
    pub(crate) incarnation: u64,
    pub(crate) address: String,
    pub(crate) version: Option<String>,
    pub(crate) zone: Option<String>,
    pub(crate) weight: u16,
    pub(crate) priority: u16,
    pub(crate) tags: BTreeSet<String>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// What the first version reads for a service: `None` if it does not take this for one of our records.
pub(crate) fn read(service: &str, told: &Value) -> Option<FrozenRecord> {
    if !is_service(service) {
        return None;
    }
    let meta: BTreeMap<String, String> = serde_json::from_value(told["Meta"].clone()).ok()?;
    let written = told["ID"].as_str()?.strip_prefix(service)?;
    let id = String::from_utf8(unescape(written.strip_prefix(':')?, b'~')?).ok()?;
    let incarnation = meta.get("sd-incarnation")?;
    let digits =
        (1..=16).contains(&incarnation.len()) && incarnation.bytes().all(|b| b.is_ascii_hexdigit());
    if !digits || !is_id(&id) {
        return None;
    }
    let number = |key: &str| meta.get(key).and_then(|text| text.parse::<u16>().ok());
    let metadata = meta.iter().filter_map(|(key, value)| {
        let key = match key.strip_prefix("sd-k-") {
            Some(written) => String::from_utf8(unescape(written, b'_')?).ok()?,
            None if key.starts_with("sd-") => return None,
            None => key.clone(),
        };
        Some((key, value.clone()))
    });
    let passing = told["Weights"]["Passing"].as_i64().unwrap_or(1).max(0);
    Some(FrozenRecord {
        incarnation: u64::from_str_radix(incarnation, 16).ok()?,
        address: address(told)?,
        version: meta.get("sd-version").cloned(),
        zone: meta.get("sd-zone").cloned(),
        weight: number("sd-weight").unwrap_or(u16::try_from(passing).unwrap_or(u16::MAX)),
        priority: number("sd-priority").unwrap_or(0),
        tags: serde_json::from_value(told["Tags"].clone()).unwrap_or_default(),
        metadata: metadata.collect(),
        id,
    })
}

fn address(told: &Value) -> Option<String> {
    if let Some(path) = told["SocketPath"].as_str() {
        return Some(format!("unix:{path}"));
    }
    let (host, port) = (told["Address"].as_str()?, told["Port"].as_u64()?);
    if host.contains(':') {
        return Some(format!("[{host}]:{port}"));
    }
    Some(format!("{host}:{port}"))
}

fn is_service(name: &str) -> bool {
    let ends = |c: char| c.is_ascii_alphanumeric();
    (1..=128).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && name.starts_with(ends)
        && name.ends_with(ends)
}

fn is_id(id: &str) -> bool {
    (1..=255).contains(&id.len())
        && !id.chars().any(|c| c.is_whitespace() || c.is_control())
        && !id.starts_with('/')
        && !id.ends_with('/')
}

fn unescape(text: &str, mark: u8) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == mark {
            let (digits, after) = after.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Some(bytes)
}

/// The record of a term as the first version reads it: token, candidate, entry, time-to-live in ms, ended.
pub(crate) fn term(value: &[u8]) -> Option<(u64, u64, String, u64, bool)> {
    let json: Value = serde_json::from_slice(value).ok()?;
    Some((
        json.get("token")?.as_u64()?,
        u64::from_str_radix(json.get("id")?.as_str()?, 16).ok()?,
        json.get("entry")?.as_str()?.to_owned(),
        json.get("ttl_ms")?.as_u64()?,
        json.get("ended")?.as_bool()?,
    ))
}

/// Who leads as the first version reads it: candidate, token if it is written there, value as text.
pub(crate) fn leader(value: &[u8]) -> Option<(u64, Option<u64>, String)> {
    let json: Value = serde_json::from_slice(value).ok()?;
    Some((
        u64::from_str_radix(json.get("id")?.as_str()?, 16).ok()?,
        json.get("token").and_then(Value::as_u64),
        json.get("value")?.as_str()?.to_owned(),
    ))
}
