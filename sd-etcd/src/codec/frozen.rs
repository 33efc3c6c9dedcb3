//! A copy of the decoder of the first version. It must never change: it stands for readers that are not updated.
//!
//! It shares no code with the rest of the crate, so that nothing can change it by accident.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

/// What the first version makes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrozenRecord {
    pub(crate) service: String,
    pub(crate) id: String,
    pub(crate) incarnation: u64,
    pub(crate) address: String,
    pub(crate) ready: bool,
    pub(crate) version: Option<String>,
    pub(crate) zone: Option<String>,
    pub(crate) weight: u16,
    pub(crate) priority: u16,
    pub(crate) tags: BTreeSet<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) withdrawn: bool,
}

#[derive(Deserialize)]
struct Json {
    service: String,
    id: String,
    incarnation: String,
    address: String,
    #[serde(default = "yes")]
    ready: bool,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default = "one")]
    weight: u16,
    #[serde(default)]
    priority: u16,
    #[serde(default)]
    tags: BTreeSet<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    withdrawn: bool,
}

fn yes() -> bool {
    true
}

fn one() -> u16 {
    1
}

/// The services that the first version lists, given all keys.
pub(crate) fn services<'a>(prefix: &str, keys: impl Iterator<Item = &'a str>) -> Vec<String> {
    let names = keys.filter_map(|key| {
        let (name, _) = key
            .strip_prefix(prefix)?
            .strip_prefix('/')?
            .split_once('/')?;
        is_service(name).then(|| name.to_owned())
    });
    let names: BTreeSet<String> = names.collect();
    names.into_iter().collect()
}

/// What the first version reads for a service under a key: `None` if the key is of another service, an error if it skips the entry.
pub(crate) fn read(
    prefix: &str,
    service: &str,
    (key, value): (&str, &[u8]),
    (lease, create_revision): (i64, i64),
) -> Option<Result<FrozenRecord, &'static str>> {
    let id = key.strip_prefix(&format!("{prefix}/{service}/"))?;
    let run = if lease == 0 { create_revision } else { lease };
    Some(decode(service, id, value, run.cast_unsigned()))
}

fn decode(service: &str, id: &str, value: &[u8], run: u64) -> Result<FrozenRecord, &'static str> {
    if !value.trim_ascii_start().starts_with(b"{") {
        return decode_plain(service, id, value, run);
    }
    let json: Json = serde_json::from_slice(value).map_err(|_| "no record")?;
    if !is_service(&json.service) || !is_id(&json.id) {
        return Err("a name");
    }
    let digits = (1..=16).contains(&json.incarnation.len())
        && json.incarnation.bytes().all(|b| b.is_ascii_hexdigit());
    if !digits {
        return Err("incarnation");
    }
    if json.service != service || json.id != id {
        return Err("under the wrong key");
    }
    Ok(FrozenRecord {
        incarnation: u64::from_str_radix(&json.incarnation, 16).map_err(|_| "incarnation")?,
        address: address(&json.address)?,
        service: json.service,
        id: json.id,
        ready: json.ready,
        version: json.version,
        zone: json.zone,
        weight: json.weight,
        priority: json.priority,
        tags: json.tags,
        metadata: json.metadata,
        withdrawn: json.withdrawn,
    })
}

fn decode_plain(
    service: &str,
    id: &str,
    value: &[u8],
    run: u64,
) -> Result<FrozenRecord, &'static str> {
    let text = std::str::from_utf8(value).map_err(|_| "no text")?.trim();
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    if !scheme.chars().all(is_scheme) || !is_id(id) {
        return Err("no address");
    }
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if host.contains('@') {
        return Err("a user name");
    }
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.contains(']'));
    let address = match scheme {
        "http" if !has_port => address(&format!("{host}:80"))?,
        "https" if !has_port => address(&format!("{host}:443"))?,
        _ => address(host)?,
    };
    let metadata = [("scheme", scheme), ("path", path)].into_iter();
    let metadata = metadata.filter(|(_, value)| !value.is_empty());
    Ok(FrozenRecord {
        service: service.to_owned(),
        id: id.to_owned(),
        incarnation: run,
        address,
        ready: true,
        version: None,
        zone: None,
        weight: 1,
        priority: 0,
        tags: BTreeSet::new(),
        metadata: metadata
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        withdrawn: false,
    })
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

fn address(text: &str) -> Result<String, &'static str> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        let is_good = path.starts_with('/') && path.len() <= 107 && !path.contains('\0');
        return is_good.then(|| format!("unix:{path}")).ok_or("a path");
    }
    let (host, port) = text.rsplit_once(':').ok_or("no port")?;
    if host.contains(':') && !host.starts_with('[') {
        return Err("no brackets");
    }
    let is_port = port.bytes().all(|b| b.is_ascii_digit());
    let port: u16 = port.parse().map_err(|_| "port")?;
    let host = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    if !is_port || port == 0 || !(1..=253).contains(&host.len()) {
        return Err("host or port");
    }
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => Err("unspecified"),
        Ok(IpAddr::V6(_)) => Ok(format!("[{host}]:{port}")),
        Ok(_) => Ok(format!("{host}:{port}")),
        Err(_) => host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
            .then(|| format!("{host}:{port}"))
            .ok_or("host"),
    }
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
